"""`make bench-capture`: what capture costs, beside its peers, in one run. Needs root and a kernel that takes BPF."""

from __future__ import annotations

import sys
from itertools import chain

from bench import capture_cost, capture_maps
from bench.report import emit


def main() -> int:
    parts = (capture_maps.figures, capture_cost.hooks, capture_cost.latency, capture_cost.memory)
    return 0 if emit("capture", chain.from_iterable(part() for part in parts)) else 1  # printed as they come


if __name__ == "__main__":
    sys.exit(main())
