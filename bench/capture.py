"""`make bench-capture`: what capture costs, beside its peers, in one run. Needs root and a kernel that takes BPF."""

from __future__ import annotations

import sys

from bench import capture_cost, capture_maps
from bench.report import emit


def main() -> int:
    return 0 if emit("capture", [*capture_maps.figures(), *capture_cost.figures()]) else 1


if __name__ == "__main__":
    sys.exit(main())
