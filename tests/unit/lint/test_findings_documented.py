"""docs/findings.md names every code that any module can give a Finding, and no other."""

import ast
import re
from pathlib import Path

from aggregator.policy.lint.codes import Code

ROOT = Path(__file__).parents[3]
CODE = re.compile(r"[a-z]+(-[a-z0-9]+)*")
CODE_WITH_DASH = re.compile(r"[a-z]+(-[a-z0-9]+)+")


def codes_in(path: Path) -> set[str]:
    """Literal codes of Finding(...), and the public constants of modules that make Findings."""
    tree = ast.parse(path.read_text())
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "Finding"]
    if not calls:
        return set()
    literals = {
        keyword.value.value
        for call in calls
        for keyword in call.keywords
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant)
    }
    constants = {
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id.isupper()
        and not node.targets[0].id.startswith("_")
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }
    return {str(code) for code in literals} | {c for c in constants if CODE_WITH_DASH.fullmatch(c)}


def documented() -> set[str]:
    text = (ROOT / "docs/findings.md").read_text()
    return {match for match in re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE) if CODE.fullmatch(match)}


def test_every_code_is_documented_and_nothing_else() -> None:
    known = set(map(str, Code))
    for path in (ROOT / "aggregator").rglob("*.py"):
        if "_pb2" not in path.name:
            known |= codes_in(path)
    assert len(known) > 60
    assert documented() == known


def test_no_code_is_documented_twice() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/findings.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(set(rows))
