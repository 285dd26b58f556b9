"""The aggregator's image as the Deployment runs it: uid 65532, no capability, read-only root; and its own commands."""

import json
import os
import subprocess
import time
from pathlib import Path

from tests.database import free_port
from tests.images.conftest import Image, Pod

NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}


def pod(image: Image, folder: Path) -> Pod:
    for name in ("database", "objects"):
        (folder / name).mkdir(exist_ok=True)
    os.chown(folder / "database", 65532, 65532)
    (folder / "objects" / "node.json").write_text(json.dumps(NODE))
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    return Pod(
        image=image,
        uid=65532,
        mounts=((str(folder / "database"), "/var/lib/wattle", True), (str(folder / "objects"), "/srv", False)),
        environment={
            "WATTLE_DEVELOPMENT": "true",
            "WATTLE_DATABASE_URL": "sqlite:////var/lib/wattle/wattle.db",
            "WATTLE_MANIFESTS": "/srv",
            **{f"WATTLE_{door}_LISTEN": f"127.0.0.1:{free_port()}" for door in ("HTTP", "INGEST", "QUERY")},
        },
    )


def test_it_serves_is_healthy_is_examined_and_stops(built: dict[str, Image], tmp_path: Path) -> None:
    image = built["aggregator"]
    what = pod(image, tmp_path)
    [kind, *health] = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert what.run(*health).returncode == 5
    assert what.run(*image.config["Entrypoint"], "--migrate").returncode == 0
    process = subprocess.Popen(what.command(*image.config["Entrypoint"]), stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while what.run(*health).returncode != 0:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
        examined = what.run("wattle", "doctor")
        assert "well  database: SQLite" in examined.stdout, examined.stderr
        assert "ill   agents: none has ever delivered" in examined.stdout
        process.terminate()
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert "Traceback" not in said
    finally:
        process.kill()
        process.wait()


def test_it_holds_what_the_page_needs_and_no_tool_to_build_with(built: dict[str, Image]) -> None:
    root = built["aggregator"].root
    assert (root / "usr/bin/dot").exists()
    assert (root / "opt/wattle/aggregator/web/static/vendor/htmx.min.js").exists()
    for program in ("gcc", "cc", "make", "git", "pip"):
        assert not (root / "usr/bin" / program).exists(), program
    assert sorted(path.name for path in (root / "opt/wattle").iterdir()) == ["aggregator", "wattle"]
