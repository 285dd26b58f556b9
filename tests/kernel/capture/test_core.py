"""The other toolchain: the same source, compiled by clang as CO-RE, passes this kernel's verifier."""

import shutil
from pathlib import Path

import pytest

from agent.kernel.core import compile_core, load_core


def test_core_objects_pass_the_verifier(tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        pytest.skip("no clang here; `make setup` installs it")
    made = compile_core(tmp_path)
    assert len(made) == 3
    for path in made:
        load_core(path)
