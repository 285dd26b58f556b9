"""Every module can be imported first: no circle that only the usual order hides."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
TRY_EACH = """
import importlib, sys
for name in sys.stdin.read().split():
    for gone in [m for m in sys.modules if m.partition(".")[0] == "aggregator"]:
        del sys.modules[gone]
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{name}: {error}")
"""


def test_every_module_of_the_pure_core_can_be_imported_first() -> None:
    packages = ("model", "baseline", "policy", "topology")
    files = sorted(path for name in packages for path in (ROOT / "aggregator" / name).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    asked = subprocess.run(
        [sys.executable, "-c", TRY_EACH], input="\n".join(names), capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert asked.stdout == ""
    assert len(names) > 100
