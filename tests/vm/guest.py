"""Debian's stock kernels in QEMU without hardware acceleration, running commands of this checkout.

Enters: a kernel package and named commands. Leaves: what the guest printed, and a verdict line for each command.
Invariant: QEMU's exit status says nothing; only `WATTLE-VM-STATUS <name>=<n>` on the serial line counts. The guest sees
/usr and this checkout, nothing else of the host, and no network; what it writes, it writes into its own memory. Kernels
are kept in ~/.cache/wattle/vm.

An emulated machine is some twenty times slower: Python's compiler is spared by handing over what it would make of this
checkout (`compiled`), and the guest keeps what it makes itself.
"""

import gzip
import os
import py_compile
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path
from typing import Literal

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wattle" / "vm"
TOOLS = ("qemu-system-x86_64", "busybox", "modprobe", "depmod", "cpio", "dpkg-deb", "apt-get", "apt-cache")
MODULES = (
    "virtio_pci",
    "9pnet_virtio",
    "9p",
    "overlay",
    "veth",
    "bridge",
    "nf_tables",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_numgen",
    "nft_ct",
    "nft_reject_inet",
    "nft_reject_ipv4",
)
Cgroups = Literal["v2", "hybrid"]  # what a guest mounts; hybrid has the kubelet's groups in v1
PACKAGES = ("agent", "aggregator", "lab", "proto", "tests")
STATUS = re.compile(r"^WATTLE-VM-STATUS ([a-z-]+)=(\d+)", re.MULTILINE)

_INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
while read m; do $b insmod /modules/$m || echo "insmod $m failed"; done < /modules/order
$b mount -t tmpfs -o size=70% root /root
cd /root
$b mkdir -p proc sys dev tmp run etc var/log usr root host/repository host/compiled host/upper host/work .{repository}
$b ln -s usr/bin usr/sbin usr/lib usr/lib64 .
$b mount -t 9p -o {nine} usr usr
$b mount -t 9p -o {nine} repository host/repository
$b mount -t 9p -o {nine} compiled host/compiled
cd host
$b mount -t overlay -o lowerdir=compiled:repository,upperdir=upper,workdir=work overlay /root{repository}
cd ..
$b cp /stage2 stage2
for d in proc sys dev; do $b mount --move /$d /root/$d; done
exec $b switch_root /root /stage2
"""
_STAGE2 = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin HOME=/root XDG_CACHE_HOME=/tmp/cache
mount -t tmpfs run /run; mount -t tracefs tracefs /sys/kernel/tracing
{cgroups}
mount -t bpf bpf /sys/fs/bpf; mkdir -p /dev/shm /dev/pts; mount -t devpts devpts /dev/pts
echo root:x:0:0:root:/root:/bin/sh > /etc/passwd; echo root:x:0: > /etc/group
echo 127.0.0.1 localhost > /etc/hosts; : > /etc/resolv.conf; hostname guest; ip link set lo up
echo "WATTLE-VM-KERNEL=$(uname -r)"
cd {repository}
{commands}
sync; echo o > /proc/sysrq-trigger; while :; do :; done
"""
_CGROUPS = {
    "v2": "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
    "hybrid": """\
mount -t tmpfs cgroup /sys/fs/cgroup; mkdir /sys/fs/cgroup/pids /sys/fs/cgroup/unified
mount -t cgroup -o pids pids /sys/fs/cgroup/pids; mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified""",
}
_NINE = "trans=virtio,version=9p2000.L,msize=524288,cache=loose,ro"


class GuestUnavailableError(Exception):
    """Why there can be no guest here, as one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestKernel:
    image: Path
    initramfs_modules: tuple[Path, ...]
    release: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestRun:
    output: str
    kernel: str

    def said(self, command: str) -> str:
        """What it printed before its verdict."""
        before = STATUS.split(self.output)
        said = dict(zip(before[1::3], before[::3], strict=False))
        return said.get(command, before[-1])

    def status(self, command: str) -> int:
        found = dict(STATUS.findall(self.output))
        assert command in found, f"the guest gave no verdict on {command}; its last words:\n{self.output[-3000:]}"
        return int(found[command])


def newest_package(pattern: str) -> str:
    """The newest signed kernel package that matches; GuestUnavailableError names what is missing."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise GuestUnavailableError(f"no {', '.join(missing)} here; `make setup` installs what the guests need")
    if os.geteuid() != 0:
        raise GuestUnavailableError("unpacking a kernel and exporting /usr to QEMU needs root; run `make test-vm`")
    if os.uname().machine != "x86_64":
        raise GuestUnavailableError(f"the guests are x86_64, this machine is {os.uname().machine}")
    listed = subprocess.run(
        ["apt-cache", "pkgnames", "linux-image-"], check=False, capture_output=True, text=True
    ).stdout
    cached = (path.name for path in CACHE.glob("linux-image-*"))
    names = {name for name in (*listed.split(), *cached) if re.fullmatch(pattern, name)}
    found = sorted(names, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
    if not found:
        raise GuestUnavailableError(f"apt knows no package {pattern}; `apt-get update` may help")
    return found[-1]


def fetch(package: str) -> GuestKernel:
    root = CACHE / package
    if not (root / "complete").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        got = subprocess.run(
            ["apt-get", "download", "-q", package], cwd=root, check=False, capture_output=True, text=True
        )
        archives = list(root.glob("*.deb"))
        if got.returncode or not archives:
            raise GuestUnavailableError(f"apt-get download {package} failed: {got.stderr.strip()[-300:]}")
        subprocess.run(["dpkg-deb", "-x", archives[0], root], check=True)
        archives[0].unlink()
        release = next((root / "lib/modules").iterdir()).name
        subprocess.run(["depmod", "-b", root, release], check=True, capture_output=True)
        (root / "complete").touch()
    release = next((root / "lib/modules").iterdir()).name
    modules: list[Path] = []
    for name in MODULES:
        shown = subprocess.run(
            ["modprobe", "-d", root, "-S", release, "--show-depends", name], check=False, capture_output=True, text=True
        )
        for line in shown.stdout.splitlines():
            action, path, *_options = [*line.split(), ""]
            if action == "insmod" and Path(path) not in modules:
                modules.append(Path(path))
    return GuestKernel(image=root / f"boot/vmlinuz-{release}", initramfs_modules=tuple(modules), release=release)


def compile_checkout(folder: Path) -> None:
    """What Python would write beside the checkout's modules, in a folder of the same shape."""
    for package in PACKAGES:
        for module in (REPOSITORY / package).rglob("*.py"):
            target = folder / Path(cache_from_source(str(module))).relative_to(REPOSITORY)
            py_compile.compile(str(module), str(target), doraise=True)


def run_in_guest(
    kernel: GuestKernel,
    commands: Mapping[str, str],
    *,
    compiled: Path,
    timeout_seconds: int,
    cgroups: Cgroups = "v2",
    memory_mib: int = 2048,
) -> GuestRun:
    """Run shell commands, one after the other; `compiled` is what `compile_checkout` filled."""
    with tempfile.TemporaryDirectory(prefix="wattle-vm-") as folder:
        initramfs = _initramfs(kernel, commands, Path(folder), cgroups)
        arguments = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"]
        arguments += ["-smp", "2", "-m", str(memory_mib), "-kernel", str(kernel.image), "-initrd", str(initramfs)]
        arguments += [
            "-append",
            "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off nokaslr tsc=unstable random.trust_cpu=on",
        ]
        arguments += ["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio", "-nic", "none"]
        for tag, path in (("usr", "/usr"), ("repository", str(REPOSITORY)), ("compiled", str(compiled))):
            arguments += ["-fsdev", f"local,id={tag},path={path},security_model=none,readonly=on,multidevs=remap"]
            arguments += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
        arguments += ["-device", "virtio-rng-pci"]
        try:
            done = subprocess.run(
                arguments,
                stdin=subprocess.DEVNULL,
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout_seconds,
            )
            raw = done.stdout
        except subprocess.TimeoutExpired as late:
            raw = (late.stdout or b"") + f"\nstopped after {timeout_seconds} s".encode()
    output = raw.decode("utf-8", "replace").replace("\r\n", "\n")
    return GuestRun(output=output, kernel=kernel.release)


def _initramfs(kernel: GuestKernel, commands: Mapping[str, str], folder: Path, cgroups: Cgroups) -> Path:
    tree = folder / "tree"
    for name in ("bin", "proc", "sys", "dev", "root", "modules"):
        (tree / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, tree / "bin/busybox")
    order = []
    for module in kernel.initramfs_modules:
        shutil.copy(module, tree / "modules" / module.name)
        if module.suffix == ".xz":
            subprocess.run(["xz", "-d", tree / "modules" / module.name], check=True)
        order.append(module.name.removesuffix(".xz"))
    (tree / "modules/order").write_text("".join(f"{name}\n" for name in order), encoding="ascii")
    (tree / "init").write_text(_INIT.format(repository=REPOSITORY, nine=_NINE), encoding="utf-8")
    told = "\n".join(f"{{ {text}; }}\necho WATTLE-VM-STATUS {name}=$?" for name, text in commands.items())
    stage2 = _STAGE2.format(repository=REPOSITORY, commands=told, cgroups=_CGROUPS[cgroups])
    (tree / "stage2").write_text(stage2, encoding="utf-8")
    (tree / "init").chmod(0o755)
    (tree / "stage2").chmod(0o755)
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    packed = subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc"], cwd=tree, input=names.encode(), check=True, capture_output=True
    )
    initramfs = folder / "initramfs.gz"
    initramfs.write_bytes(gzip.compress(packed.stdout, compresslevel=1))
    return initramfs
