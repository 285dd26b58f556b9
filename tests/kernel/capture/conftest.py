"""Each test begins with an empty interval: the agent is shared."""

import pytest

from tests.kernel.rig import Rig


@pytest.fixture(autouse=True)
def empty_interval(rig: Rig) -> None:
    rig.rows()
