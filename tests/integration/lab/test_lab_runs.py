"""Real labs on this machine's kernel: what runs is what the folder of objects says, and nothing stays afterwards."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import cgroups
from lab.client import LabHandle, running, up
from lab.errors import LabError
from tests.plainuser import AS_NOBODY

ROOT = Path(__file__).parents[3]
TWO_NODES = Path(__file__).with_name("two-nodes.yaml")


def left(name: str) -> list[str]:
    """Everything on this machine that carries a lab's name."""
    found = [f"netns {p.name}" for p in Path("/run/netns").glob(f"wl-{name}.*")] if Path("/run/netns").is_dir() else []
    found += [f"cgroup {root}" for root in cgroups.tree(name).roots if root.exists()]
    found += [f"state {p}" for p in [Path("/run/wattle-lab") / name] if p.exists() or p.is_symlink()]
    found += [
        f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"wl-{name}." in line
    ]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"/wl-{name}/" in (process / "cgroup").read_text():
                found.append(f"process {process.name}")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def host_network() -> str:
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    return links + routes + tables


def until(condition: Callable[[], Any], what: str, deadline_seconds: float = 20.0) -> Any:
    end = time.monotonic() + deadline_seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.05)
    return found


def objects(lab: LabHandle, kind: str) -> list[dict[str, Any]]:
    found = []
    for path in sorted(lab.objects_dir.glob(f"{kind.lower()}.*.yaml")):
        try:
            found.append(yaml.safe_load(path.read_text()))
        except FileNotFoundError:  # taken away between the listing and the reading
            continue
    return found


@pytest.fixture(scope="module")
def before() -> str:
    return host_network()


@pytest.fixture(scope="module")
def shop(before: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHandle]:
    state = tmp_path_factory.mktemp("lab") / "state"
    with running(ROOT / "lab/shop.yaml", name="t-shop", state=state, without=["example-java-app/client"]) as lab:
        yield lab
    assert left("t-shop") == []
    assert not state.exists()
    assert host_network() == before


def test_each_running_pod_is_where_its_object_says(shop: LabHandle) -> None:
    manifests = {p["metadata"]["uid"]: p for p in objects(shop, "Pod")}
    looked_at = [pod for pod in shop.status()["pods"] if pod["netns"] and "CronJob" not in pod["workload"]]
    assert len(looked_at) >= 9
    for pod in looked_at:
        manifest = manifests[pod["uid"]]
        assert manifest["status"]["phase"] == "Running"
        assert [ip["ip"] for ip in manifest["status"]["podIPs"]] == pod["addresses"]
        shown = subprocess.run(["ip", "-n", pod["netns"], "addr"], capture_output=True, text=True, check=True).stdout
        assert f" {pod['addresses'][0]}/" in shown
        folder_uid = pod["log_folder"].rpartition("_")[2]
        for container, pid in pod["pids"].items():
            assert (shop.pod_logs_dir / pod["log_folder"] / container / "0.log").is_file()
            status = next(c for c in manifest["status"]["containerStatuses"] if c["name"] == container)
            identity = status["containerID"].removeprefix("containerd://")
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
            mine = [line for line in lines if "kubepods" in line]
            assert len(mine) == len(shop.cgroup_roots)
            assert all(
                f"pod{folder_uid.replace('-', '_')}.slice/cri-containerd-{identity}.scope" in line for line in mine
            )
            here = Path(f"/proc/{pid}/ns/net").readlink()
            assert here != Path("/proc/self/ns/net").readlink()


def test_anybody_may_read_what_the_lab_writes_for_others(shop: LabHandle) -> None:
    for path in [shop.state, shop.objects_dir, *shop.objects_dir.iterdir(), *shop.pod_logs_dir.rglob("*")]:
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:  # a temporary file, or a Job that was forgotten
            continue
        if not path.name.startswith(".new-"):
            assert mode & 0o004, path


def test_a_static_pods_mirror_has_another_uid_and_its_node_as_owner(shop: LabHandle) -> None:
    (mirror,) = [p for p in objects(shop, "Pod") if p["metadata"]["name"].startswith("kube-apiserver")]
    config_hash = mirror["metadata"]["annotations"]["kubernetes.io/config.hash"]
    assert (shop.pod_logs_dir / f"kube-system_kube-apiserver-node-1_{config_hash}").is_dir()
    (node,) = objects(shop, "Node")
    assert mirror["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]


def test_names_services_and_the_outside_work_from_within_a_pod(shop: LabHandle) -> None:
    pod = shop.pod("example-java-app/Deployment/javaapp")["pod"]
    script = (
        "import socket, os\n"
        "print(socket.gethostbyname('redis'))\n"
        "s = socket.create_connection(('redis.example-java-app', 6379), 3)\n"
        "s.sendall(b'PING\\r\\n'); print(s.recv(99))\n"
        "s = socket.create_connection(('203.0.113.10', 443), 3); s.sendall(b'x\\n'); print(s.recv(9))\n"
        "print(open('/proc/self/cgroup').read())\n"
    )
    done = shop.execute(pod, ["/usr/bin/python3", "-c", script])
    assert done.returncode == 0, done.stderr
    (service,) = [s for s in objects(shop, "Service") if s["metadata"]["name"] == "redis"]
    assert done.stdout.startswith(f"{service['spec']['clusterIP']}\nb'+PONG")
    assert "b'x\\n'" in done.stdout
    assert "cri-containerd-" in done.stdout


def test_an_unknown_name_and_an_unserved_port_fail_at_once(shop: LabHandle) -> None:
    pod = shop.pod("example-java-app/Deployment/javaapp")["pod"]
    script = (
        "import socket\n"
        "for host, port in (('nobody', 80), ('redis', 81)):\n"
        "    try: socket.create_connection((host, port), 3)\n"
        "    except OSError as error: print(type(error).__name__)\n"
    )
    done = shop.execute(pod, ["/usr/bin/python3", "-c", script])
    assert done.stdout.split() == ["gaierror", "ConnectionRefusedError"]


def test_the_pods_own_files_stay_in_its_mount_namespace(shop: LabHandle) -> None:
    pod = shop.pod("example-java-app/Deployment/javaapp")["pod"]
    done = shop.execute(pod, ["cat", "/etc/resolv.conf"])
    assert done.stdout.startswith("search example-java-app.svc.cluster.local svc.cluster.local cluster.local\n")
    assert Path("/etc/resolv.conf").read_text() != done.stdout
    assert not Path("/etc/netns").exists()


def test_a_workload_left_out_is_in_no_object(shop: LabHandle) -> None:
    assert not [d for d in objects(shop, "Deployment") if d["metadata"]["name"] == "client"]
    assert not [p for p in shop.status()["pods"] if p["workload"].endswith("/client")]


def test_an_ended_jobs_pod_is_kept_as_succeeded(shop: LabHandle) -> None:
    (pod, *_) = [p for p in objects(shop, "Pod") if p["metadata"]["name"].startswith("report-")]
    assert pod["status"]["phase"] == "Succeeded"
    assert pod["status"]["podIP"]
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"]
    job = next(j for j in objects(shop, "Job") if j["metadata"]["uid"] == pod["metadata"]["ownerReferences"][0]["uid"])
    assert job["metadata"]["ownerReferences"][0]["kind"] == "CronJob"


def test_a_container_that_dies_is_started_again_with_another_id(shop: LabHandle) -> None:
    first = shop.pod("example-java-app/Deployment/statsd")
    os.kill(first["pids"]["statsd"], signal.SIGKILL)

    def again() -> dict[str, Any] | None:
        pod = shop.pod("example-java-app/Deployment/statsd")
        return pod if pod["ready"] and pod["restarts"] == 1 else None

    second = until(again, "the container came back")
    assert second["uid"] == first["uid"]
    assert second["cgroups"] != first["cgroups"]
    assert (shop.pod_logs_dir / first["log_folder"] / "statsd" / "1.log").is_file()


def test_the_same_lab_cannot_run_twice(shop: LabHandle) -> None:
    with pytest.raises(LabError, match=r"lab t-shop is running already: `python -m lab down t-shop` ends it"):
        up(ROOT / "lab/shop.yaml", name="t-shop")
    assert shop.status()["settled"]


def test_other_names_ports_and_families_and_nothing_left_after_a_kill(before: str) -> None:
    lab = up(ROOT / "lab/clinic.yaml", name="t-clinic", without=["imaging/scanner"])
    try:
        status = lab.status()
        assert status["settled"]
        assert not [c for c in status["clients"] if c["last_error"]]
        pod = next(p for p in status["pods"] if p["workload"] == "imaging/Deployment/archive")
        assert [a.count(":") > 0 for a in pod["addresses"]] == [False, True]
        portal = next(p for p in status["pods"] if p["workload"] == "clinic/Deployment/portal")
        assert re.match(r"kubepods/besteffort/pod[0-9a-f-]{36}/[0-9a-f]{64}$", portal["cgroups"]["portal"])
        (names,) = [s for s in objects(lab, "EndpointSlice") if s["metadata"]["namespace"] == "kube-system"]
        assert {port["port"] for port in names["ports"]} == {5353}
        os.kill(lab.supervisor_pid, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{lab.supervisor_pid}/cmdline").read_bytes(), "the supervisor is dead")
        assert left("t-clinic")
    finally:
        lab.down()
    assert left("t-clinic") == []
    assert host_network() == before


def test_two_nodes_and_a_sweep() -> None:
    lab = up(TWO_NODES, name="t-two")
    try:
        pods = lab.status()["pods"]
        assert {p["node"] for p in pods if p["workload"] == "shop/DaemonSet/caller"} == {"a", "b"}
        assert next(p for p in pods if p["workload"] == "shop/Deployment/web")["addresses"][0].startswith("10.244.1.")
        (job,) = objects(lab, "Job")
        assert job["status"]["succeeded"] == 1
        os.kill(lab.supervisor_pid, signal.SIGKILL)
    finally:
        swept = subprocess.run(
            [sys.executable, "-m", "lab", "sweep", "t-two"], cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert "t-two" in swept.stdout
    assert left("t-two") == []


def test_a_lab_that_cannot_settle_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(TWO_NODES.read_text().replace("http://web", "http://web:81"))
    done = subprocess.run(
        [sys.executable, "-m", "lab", "up", str(path), "--name", "t-never", "--deadline", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("lab: the lab did not settle within 2 s: ")
    assert left("t-never") == []


def test_without_root_it_is_one_sentence() -> None:
    done = subprocess.run(
        [*AS_NOBODY, sys.executable, "-B", "-m", "lab", "sweep"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "lab: the lab makes network namespaces and cgroups and so needs root: run it with sudo\n"


def test_a_folder_that_is_no_labs_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(LabError, match="is not empty and no lab's; give --state another directory"):
        up(ROOT / "lab/shop.yaml", name="t-else", state=tmp_path)
    assert (tmp_path / "mine").read_text() == "precious"
    assert left("t-else") == []
