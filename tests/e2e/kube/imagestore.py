"""containerd's image store, filled once and kept: unpacking gigabytes twice a run would be most of the run.

Enters: image archives. Leaves: a folder as containerd keeps it, below build/e2e. Invariant: nodes get hard links of its
files, which containerd only ever reads, and copies of its two databases, into which it writes.
"""

import hashlib
import shutil
from pathlib import Path

from tests.cluster.controlplane import wait_until
from tests.e2e.kube.images import PAUSE
from tests.e2e.kube.machine import BUILD, STATE, hold_namespaces, run, start

CONTAINERD = f"""version = 2
oom_score = 0
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
"""
DATABASES = ("io.containerd.metadata.v1.bolt/meta.db", "io.containerd.snapshotter.v1.overlayfs/metadata.db")
FOLDERS = {"/var/lib/containerd": "store", "/run/containerd": "run"}


def image_store(archives: list[Path]) -> Path:
    """The store that holds these archives, filled where it is missing."""
    told = "".join(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in archives)
    kept = BUILD / f"store-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
    if kept.exists():
        return kept
    for old in BUILD.glob("store-*"):
        shutil.rmtree(old)
    folder = STATE / "filling"
    holder = hold_namespaces("filling-holder")
    lines = []
    for target, name in FOLDERS.items():
        (folder / name).mkdir(parents=True)
        Path(target).mkdir(parents=True, exist_ok=True)
        lines.append(f"mount --bind {folder / name} {target}")
    settings = folder / "containerd.toml"
    settings.write_text(CONTAINERD)
    enter = ("nsenter", "--net", "--mount", "-t", str(holder.pid), "--")
    run(*enter, "sh", "-ec", "\n".join(lines))
    daemon = start("filling-containerd", ["containerd", "--config", str(settings)], inside=holder.pid)
    wait_until(lambda: run(*enter, "ctr", "version"), "containerd", 60)
    for archive in archives:
        run(*enter, "ctr", "-n", "k8s.io", "images", "import", str(archive), seconds=600)
    daemon.terminate()
    daemon.wait(30)
    holder.kill()
    holder.wait()
    (folder / "store").rename(kept)
    return kept


def link_store(store: Path, target: Path) -> None:
    run("cp", "--archive", "--link", f"{store}/.", str(target))
    for database in DATABASES:
        (target / database).unlink()
        shutil.copy2(store / database, target / database)
