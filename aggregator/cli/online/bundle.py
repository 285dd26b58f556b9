"""Files of proposals: one form of a scope, or a folder for each namespace of a cluster, for GitOps.

Enters: what the server exports. Leaves: files below one directory, and nothing beside it. Invariant: each namespace's
proposal is proved by the server for itself; the folder says in which order to apply, and where a proof is missing.
"""

from collections.abc import Mapping
from pathlib import Path

import yaml

from aggregator.cli import show
from aggregator.cli.online.rest import Rest, place, progress
from aggregator.errors import InputError

ORDER = "ORDER.md"


def write(rest: Rest, to: Path, *, form: str, span: str) -> int:
    """Every namespace that the caller sees and that has a proposal. 1 when one of them is not certified."""
    names = [row["name"] for row in rest.items("/namespaces", {}, doing="namespaces")]
    order = ["# The order of application\n"]
    certified = True
    kept = []
    with progress() as bar:
        task = bar.add_task("proposals", total=len(names))
        for name in names:
            path = f"{place('namespaces', name)}/policy"
            export = rest.get(f"{path}/exports/{form}", {"span": span})
            steps = rest.get(f"{path}/plan", {"span": span})
            if steps["steps"]:
                kept.append(name)
                written(to / name, {file["path"]: file["text"] for file in export["files"]}, quiet=True)
                certified = certified and export["certified"]
                proof = "" if export["certified"] else f" ({export['label']})"
                order.append(f"## {name}{proof}\n")
                order += [f"{n}. {s['action']} `{s['policy']}`: {s['text']}" for n, s in enumerate(steps["steps"], 1)]
                order += [f"- {_then(restart)}" for restart in steps["restarts"]]
                order += [f"- {note}" for note in export["notes"]]
                order.append("")
            bar.advance(task)
    index = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": kept}
    top = {ORDER: "\n".join(order)} | ({"kustomization.yaml": yaml.safe_dump(index)} if form == "kustomize" else {})
    written(to, top, quiet=True)
    show.aside([f"{len(kept)} of {len(names)} namespaces have a proposal: see {to / ORDER}"])
    return 0 if certified else 1


def _then(restart: Mapping[str, str]) -> str:
    """A CronJob has no command: its next run is a restart."""
    return f"then `{restart['command']}`: {restart['text']}" if restart["command"] else restart["text"]


def written(to: Path, files: Mapping[str, str], *, quiet: bool = False) -> None:
    """Below `to` alone, whatever a path says. Raises InputError."""
    root = to.resolve()
    for name, text in files.items():
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise InputError(f"the server names a file outside of {to}: {name!r}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as exc:
            raise InputError(f"cannot be written: {exc}", file=str(path)) from exc
        if not quiet:
            show.aside([f"wrote {to / name}"])
