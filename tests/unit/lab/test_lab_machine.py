"""The lab's view of the machine, from text: cgroup hierarchies and paths, quality of service, the object folder."""

import re
import threading
from pathlib import Path

import pytest
import yaml

from lab import lifecycle
from lab.cgroups import container_path, hierarchies, quality_of_service
from lab.files import write_atomically
from lab.lifecycle import unsettled
from lab.objects import ObjectFolder

UID = "0f3a5b7c-1111-4222-8333-444455556666"
CONTAINER = "ab" * 32
V2 = "25 1 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = """\
25 1 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:22 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
27 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
28 25 0:24 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
29 25 0:25 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
30 25 0:26 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
"""


def test_hierarchies() -> None:
    assert hierarchies(V2) == (Path("/sys/fs/cgroup"),)
    assert [str(p) for p in hierarchies(HYBRID)] == [f"/sys/fs/cgroup/{n}" for n in ("unified", "memory", "pids")]
    assert hierarchies("1 0 8:1 / / rw - ext4 /dev/vda rw\n") == ()


@pytest.mark.parametrize(
    ("driver", "quality", "path"),
    [
        (
            "systemd",
            "Burstable",
            (
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f3a5b7c_1111_4222_8333_444455556666.slice/"
                f"cri-containerd-{CONTAINER}.scope"
            ),
        ),
        (
            "systemd",
            "Guaranteed",
            f"kubepods.slice/kubepods-pod0f3a5b7c_1111_4222_8333_444455556666.slice/cri-containerd-{CONTAINER}.scope",
        ),
        ("cgroupfs", "BestEffort", f"kubepods/besteffort/pod{UID}/{CONTAINER}"),
        ("cgroupfs", "Guaranteed", f"kubepods/pod{UID}/{CONTAINER}"),
    ],
)
def test_paths_are_the_kubelets(driver: str, quality: str, path: str) -> None:
    assert container_path(driver, quality, UID, CONTAINER) == path


@pytest.mark.parametrize(
    ("resources", "quality"),
    [
        ([{}], "BestEffort"),
        ([{"requests": {"cpu": "1"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}], "Guaranteed"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}, {}], "Burstable"),
    ],
)
def test_quality_of_service(resources: list[dict], quality: str) -> None:
    assert quality_of_service({"spec": {"containers": [{"resources": r} for r in resources]}}) == quality


def item(uid: str, **status: object) -> dict:
    meta = {"name": "p", "namespace": "n", "uid": uid}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": status}


def test_an_object_is_written_only_on_change_with_a_higher_version(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path / "objects")
    pod = item("u1", phase="Pending")
    path = tmp_path / "objects" / "pod.n.p.yaml"

    def version() -> int:
        return int(yaml.safe_load(path.read_text())["metadata"]["resourceVersion"])

    folder.put(pod)
    first, inode = version(), path.stat().st_ino
    folder.put(item("u1", phase="Pending"))
    assert path.stat().st_ino == inode
    pod["status"]["phase"] = "Running"  # the caller's own object, changed in place
    folder.put(pod)
    assert version() > first
    assert yaml.safe_load(path.read_text())["status"]["phase"] == "Running"
    folder.remove(pod)
    assert list((tmp_path / "objects").iterdir()) == []
    folder.remove(pod)


def test_labels_that_look_like_numbers_stay_strings(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path)
    pod = item("u1")
    pod["metadata"]["labels"] = {"a": "1e3", "b": "yes", "c": "0123", "d": "null", "e": "1_000"}
    folder.put(pod)
    assert yaml.safe_load((tmp_path / "pod.n.p.yaml").read_text())["metadata"]["labels"] == pod["metadata"]["labels"]


def test_a_failed_write_leaves_the_old_text_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\udcff")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f.yaml"]
    assert re.match(r"0o100644$", oct(path.stat().st_mode))


def test_what_is_missing_is_said_in_a_sentence() -> None:
    status = {
        "pods": [
            {"pod": "n/a", "ready": False, "phase": "Running"},
            {"pod": "n/b", "ready": True, "phase": "Running"},
            {"pod": "n/job", "ready": False, "phase": "Succeeded"},
        ],
        "clients": [{"pod": "n/b", "last_error": "http://web: refused"}, {"pod": "n/c", "last_error": None}],
        "jobs": [{"workload": "n/CronJob/j", "succeeded": 0}],
    }
    assert unsettled(status) == "pod n/a is not ready; client n/b: http://web: refused; n/CronJob/j never succeeded"
    assert "supervisor.log" in unsettled({})


def test_the_lock_holds_although_its_folder_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "HOME", tmp_path / "home")
    inside: list[int] = []
    most = []

    def work() -> None:
        for _ in range(50):
            with lifecycle.locked():
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 200
    assert max(most) == 1
    assert not (tmp_path / "home").exists()
