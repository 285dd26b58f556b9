"""The rules that every module keeps, whoever wrote it."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("agent", "aggregator", "proto/wattle", "lab", "bench")
HARD_LIMIT_LINES = 500


def sources() -> list[Path]:
    found = [p for package in PACKAGES for p in (ROOT / package).rglob("*.py") if "_pb2" not in p.name]
    return sorted(found)


def tracked() -> list[Path]:
    names = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_fits_the_hard_limit(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= HARD_LIMIT_LINES, f"{path.relative_to(ROOT)} has {lines} lines: split it by idea"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_says_what_enters_and_leaves(path: Path) -> None:
    text = path.read_text()
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), f"{path.relative_to(ROOT)} has no module docstring"


def test_no_vague_names() -> None:
    vague = re.compile(r"(?:Manager|Helper|Handler|Util|Utils)$")
    named = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and vague.search(node.name)
    ]
    assert named == []
    assert [p for p in sources() if re.search(r"(?:^|_)(?:utils?|helpers?|common|misc)$", p.stem)] == []


def test_direction_is_never_a_boolean() -> None:
    found = [p for p in sources() if re.search(r"\bis_(?:ingress|egress)\b", p.read_text())]
    assert found == []


def test_the_repository_speaks_of_wattle_alone() -> None:
    # Spelled in parts so that this file does not find itself.
    foreign = re.compile(
        "|".join(
            [
                "/" + "work/",
                "/" + "shared/",
                r"\." + "library",
                "pypi" + r"\.org",
                "registry" + r"\.npmjs",
                "proxy" + r"\.golang",
            ]
        )
    )
    found = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {m.group()}" for m in foreign.finditer(text)]
    assert found == []


def test_the_version_is_said_once() -> None:
    from wattle import __version__

    said = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.suffix in {".py", ".toml", ".yaml", ".yml", ".tpl"}
        and "tests" not in path.parts
        and re.search(rf'(?:version|VERSION)\w*["\']?\s*[:=]\s*["\']?{re.escape(__version__)}\b', path.read_text())
    ]
    assert said == ["deploy/helm/wattle/Chart.yaml", "proto/wattle/__init__.py"]
