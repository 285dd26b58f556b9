"""Runs the demo as `make demo ONCE=1` does, and reads what it printed and left."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
LEFT_BY_DEMO = ROOT / "build" / "demo"


@dataclass(frozen=True)
class Shown:
    """What one run of the demo printed and left."""

    code: int
    text: str
    policy_yaml: str = ""
    links: list[dict[str, Any]] = field(default_factory=list)
    certificate: dict[str, Any] = field(default_factory=dict)

    @property
    def policies(self) -> dict[str, dict[str, Any]]:
        return {p["metadata"]["name"]: p for p in yaml.safe_load_all(self.policy_yaml)}

    def policy_of(self, workload: str) -> dict[str, Any]:
        return self.policies[f"wattle-{workload}"]


def run_demo(*arguments: str) -> Shown:
    shutil.rmtree(LEFT_BY_DEMO, ignore_errors=True)
    ran = subprocess.run(
        [sys.executable, "-m", "lab.demo", *arguments, "--once"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    text = ran.stdout + ran.stderr
    if not (LEFT_BY_DEMO / "policy.yaml").exists():
        return Shown(code=ran.returncode, text=text)
    return Shown(
        code=ran.returncode,
        text=text,
        policy_yaml=(LEFT_BY_DEMO / "policy.yaml").read_text(),
        links=json.loads((LEFT_BY_DEMO / "links.json").read_text()),
        certificate=json.loads((LEFT_BY_DEMO / "certificate.json").read_text()),
    )
