"""Bundles: the proposals of many namespaces as one folder for GitOps, with the order of application.

Enters: of each namespace what its proposals look like in a form, and their plan, as views or as their JSON. Leaves:
files by path. Invariant: each namespace's proposals are proved for themselves; the folder says where a proof lacks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

ORDER = "ORDER.md"
KUSTOMIZE = "kustomize"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One namespace of a bundle. Mappings: an ExportView and a PlanView, as in JSON."""

    namespace: str
    export: Mapping[str, Any]
    plan: Mapping[str, Any]

    @property
    def empty(self) -> bool:
        """Nothing is proposed there."""
        return not self.plan["steps"]

    @property
    def certified(self) -> bool:
        return self.empty or bool(self.export["certified"])


def bundle_files(parts: Sequence[Part], form: str) -> dict[str, str]:
    """A folder for each namespace that has a proposal, ORDER.md, and what kustomize asks for."""
    kept = [part for part in parts if not part.empty]
    files = {f"{part.namespace}/{file['path']}": str(file["text"]) for part in kept for file in part.export["files"]}
    lines = ["# The order of application\n"]
    for part in kept:
        lines += _order(part)
    files[ORDER] = "\n".join(lines)
    if form == KUSTOMIZE:
        index = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [part.namespace for part in kept],
        }
        files["kustomization.yaml"] = yaml.safe_dump(index)
    return files


def _order(part: Part) -> list[str]:
    proof = "" if part.certified else f" ({part.export['label']})"
    steps = enumerate(part.plan["steps"], start=1)
    return [
        f"## {part.namespace}{proof}\n",
        *(f"{n}. {step['action']} `{step['policy']}`: {step['text']}" for n, step in steps),
        *(f"- {_then(restart)}" for restart in part.plan["restarts"]),
        *(f"- {note}" for note in part.export["notes"]),
        "",
    ]


def _then(restart: Mapping[str, str]) -> str:
    """A CronJob has no command: its next run is a restart."""
    return f"then `{restart['command']}`: {restart['text']}" if restart["command"] else restart["text"]
