"""Files of proposals: one form of a scope, or a folder for each namespace of a cluster, for GitOps.

Enters: what the server exports. Leaves: files below one directory, and nothing beside it. Invariant: each namespace's
proposal is proved by the server for itself; the folder says in which order to apply, and where a proof is missing.
"""

from collections.abc import Mapping
from pathlib import Path

from aggregator.cli import show
from aggregator.cli.online.rest import Rest, place, progress
from aggregator.errors import InputError
from aggregator.services.policies.bundles import ORDER, Part, bundle_files


def write(rest: Rest, to: Path, *, form: str, span: str) -> int:
    """Every namespace that the caller sees and that has a proposal. 1 when one of them is not certified."""
    names = [row["name"] for row in rest.items("/namespaces", {}, doing="namespaces")]
    parts = []
    with progress() as bar:
        task = bar.add_task("proposals", total=len(names))
        for name in names:
            path = f"{place('namespaces', name)}/policy"
            plan = rest.get(f"{path}/plan", {"span": span})
            export = rest.get(f"{path}/exports/{form}", {"span": span}) if plan["steps"] else {}
            parts.append(Part(namespace=name, export=export, plan=plan))
            bar.advance(task)
    written(to, bundle_files(parts, form), quiet=True)
    kept = sum(not part.empty for part in parts)
    show.aside([f"{kept} of {len(names)} namespaces have a proposal: see {to / ORDER}"])
    return 0 if all(part.certified for part in parts) else 1


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
