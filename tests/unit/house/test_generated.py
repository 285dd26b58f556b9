"""The committed protocol code is what the .proto files give."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    protos = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    assert protos
    plugin = Path(sys.executable).with_name("protoc-gen-mypy")
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "grpc_python", "mypy")]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            "-I",
            "proto",
            *outputs,
            f"--plugin=protoc-gen-mypy={plugin}",
            *protos,
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    made = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert made
    for path in made:
        committed = ROOT / "proto" / path.relative_to(tmp_path)
        assert committed.read_bytes() == path.read_bytes(), f"{committed.relative_to(ROOT)} is old: run `make proto`"
