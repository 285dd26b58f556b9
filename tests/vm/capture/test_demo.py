"""The demo in a guest, end to end, by kprobe: the links that the tracepoint backend sees here, and no other."""

import json
import re

import pytest

from tests.demo import Shown
from tests.integration.demo.test_demo import expected, seen
from tests.vm.capture.test_guests import STABLE, kernel
from tests.vm.guest import run_in_guest

LINKS = re.compile(r"^WATTLE-LINKS=(.*)$", re.MULTILINE)
# An emulated machine takes ten times as long; build/ lies in a checkout that the guest may only read.
DEMO = (
    "mount -t tmpfs build build && : > /etc/resolv.conf && .venv/bin/python -B -c "
    '\'import sys, lab.demo as demo; demo.DEADLINE_SECONDS = 400; sys.exit(demo.main(["lab/shop.yaml", "--once"]))\'; '
    "status=$?; tail -n 5 build/demo/*.log; "
    'echo; printf WATTLE-LINKS=; tr -d "\\n" < build/demo/links.json; echo; (exit $status)'
)


@pytest.mark.timeout(500)
def test_kprobe_sees_the_links_of_the_demo_and_no_other() -> None:
    run = run_in_guest(kernel(STABLE), DEMO, timeout_seconds=490, memory_mib=3072)
    assert run.status == 0, run.output[-6000:]
    assert "backend kprobe: attached" in run.output
    found = LINKS.search(run.output)
    assert found is not None, run.output[-6000:]
    shown = Shown(code=0, text=run.output, links=json.loads(found[1]))
    assert seen(shown) == expected("shop.yaml", "example-java-app")
