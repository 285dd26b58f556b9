"""The lab's client: what it says when the lab it holds is no longer there."""

from pathlib import Path

import pytest

from lab.client import LabHandle
from lab.errors import StateError


def test_a_lab_that_somebody_took_down_is_a_sentence(tmp_path: Path) -> None:
    handle = LabHandle(
        name="shop",
        state=tmp_path / "gone",
        objects_dir=tmp_path,
        pod_logs_dir=tmp_path,
        select="a/Deployment/b",
        supervisor_pid=1,
        cgroup_roots=(),
        nodes={},
    )
    with pytest.raises(StateError, match="lab shop is gone"):
        handle.status()
