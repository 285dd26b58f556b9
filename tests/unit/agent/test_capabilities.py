"""Which capability is missing is read from the kernel's own words, and said by name."""

from pathlib import Path

import pytest

from agent.capabilities import NEEDED, SYS_ADMIN, complaint, effective, missing

ALL = sum(1 << each.bit for each in NEEDED)


@pytest.mark.parametrize("taken", NEEDED, ids=lambda each: each.name)
def test_one_that_is_taken_away_is_named(taken) -> None:
    [found] = missing(ALL & ~(1 << taken.bit))
    assert found is taken
    assert complaint(found).startswith(f"{taken.name} is missing: ")


def test_sys_admin_stands_for_bpf_and_perfmon_alone() -> None:
    assert [each.name for each in missing(1 << SYS_ADMIN)] == ["CAP_NET_ADMIN", "CAP_SYS_PTRACE"]
    assert missing(ALL) == ()
    assert missing(0) == NEEDED


def test_the_effective_set_is_read(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nCapPrm:\t0000000000000000\nCapEff:\t000000c000081000\nSeccomp:\t0\n")
    assert missing(effective(status)) == ()
    assert isinstance(effective(), int)
