"""Container images without a registry: Debian by mmdebstrap as a docker-archive, and Wattle's own.

Leaves: an archive below build/e2e, and those that `make images` leaves below build/images. The application's image is
Debian with real servers, made once and kept; its programs come by ConfigMap, so that they can change.
"""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.cluster.kubebinaries import NotToBeHad
from tests.e2e.kube.machine import BUILD

ROOT = Path(__file__).parents[3]
PAUSE = "localhost/wattle-e2e/pause:1"
APPLICATION = "localhost/wattle-e2e/application:1"
DEBIAN = ("python3-minimal", "libpython3-stdlib", "redis-server", "postgresql", "python3-psycopg2", "dnsmasq-base")
# What no program here asks for: half of the layer.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/lib/*/libLLVM*", "/usr/lib/*/libz3*")
WATTLE = ("agent", "aggregator")


def application_images() -> Path:
    """One archive of the application's image and of the pause container, which share their layer."""
    base = _debian()
    digest = _digest_of(base)
    layer = f"{digest}/layer.tar"
    files: dict[str, bytes] = {}
    manifest = []
    for name, entry in ((APPLICATION, []), (PAUSE, ["/usr/bin/sleep", "infinity"])):
        config = _config(digest, entry)
        file = f"{hashlib.sha256(config).hexdigest()}.json"
        files[file] = config
        manifest.append({"Config": file, "RepoTags": [name], "Layers": [layer]})
    files["manifest.json"] = json.dumps(manifest).encode()
    archive = BUILD / f"application-{hashlib.sha256(files['manifest.json']).hexdigest()[:12]}.tar"
    if not archive.exists():
        for old in BUILD.glob("application-*.tar"):
            old.unlink()
        aside = archive.with_suffix(".making")
        with tarfile.open(aside, "w") as made:
            for path, data in files.items():
                item = tarfile.TarInfo(path)
                item.size = len(data)
                made.addfile(item, io.BytesIO(data))
            item = tarfile.TarInfo(layer)
            item.size = base.stat().st_size
            with base.open("rb") as opened:
                made.addfile(item, opened)
        aside.rename(archive)
    return archive


def wattle_images() -> list[Path]:
    """What `make images` left, made by it where it is missing. Raises NotToBeHad."""
    archives = [ROOT / "build" / "images" / f"wattle-{program}.tar" for program in WATTLE]
    if not all(archive.exists() for archive in archives):
        made = subprocess.run(["make", "images"], cwd=ROOT, capture_output=True, text=True, check=False)
        if made.returncode:
            raise NotToBeHad(f"make images failed: {' / '.join(made.stderr.strip().splitlines()[-3:])}")
    return archives


def _debian() -> Path:
    layer = BUILD / f"debian-{hashlib.sha256(' '.join(DEBIAN + LEFT_OUT).encode()).hexdigest()[:8]}.tar"
    if layer.exists():
        return layer
    if shutil.which("mmdebstrap") is None:
        raise NotToBeHad("no mmdebstrap: apt-get install mmdebstrap")
    BUILD.mkdir(parents=True, exist_ok=True)
    aside = layer.with_suffix(".making.tar")
    without = [f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT]
    made = subprocess.run(
        ["mmdebstrap", "-q", "--variant=minbase", *without, f"--include={','.join(DEBIAN)}", "bookworm", str(aside)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise NotToBeHad(f"mmdebstrap failed: {' / '.join(made.stderr.strip().splitlines()[-3:])}")
    aside.rename(layer)
    return layer


def _digest_of(layer: Path) -> str:
    """Kept beside the layer: reading half a gigabyte takes its time."""
    kept = layer.with_suffix(".sha256")
    if not kept.exists():
        with layer.open("rb") as opened:
            kept.write_text(hashlib.file_digest(opened, "sha256").hexdigest())
    return kept.read_text()


def _config(digest: str, entry: list[str]) -> bytes:
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": entry, "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "wattle-e2e"}],
        }
    ).encode()
