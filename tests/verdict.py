"""Adds the tiers up: prints what was skipped and why, then one line that counts, and fails when a test did."""

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET


def main(folder: Path) -> int:
    """Read the JUnit files of `folder`; the names of tiers that ended non-zero stand in its file `failed`."""
    ran = failed = 0
    skips: Counter[str] = Counter()
    for report in sorted(folder.glob("*.xml")):
        for case in ET.parse(report).iter("testcase"):
            skipped = case.find("skipped")
            if skipped is not None:
                skips[f"{report.stem}: {skipped.get('message', 'no reason given')}"] += 1
                continue
            ran += 1
            failed += any(case.find(tag) is not None for tag in ("failure", "error"))
    broken = (folder / "failed").read_text().split() if (folder / "failed").exists() else []
    reasons = "; ".join(f"{count} x {reason}" for reason, count in sorted(skips.items()))
    print(f"ran {ran} tests, skipped {skips.total()}{': ' + reasons if reasons else ''}")
    if broken:
        print(f"these tiers failed: {', '.join(broken)}")
    print(f"{ran - failed} passed, {failed} failed, {skips.total()} skipped")
    return 1 if failed or broken or not ran else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
