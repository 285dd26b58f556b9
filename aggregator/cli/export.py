"""`wattle export`: policies in a plug-in's own form, as cluster-wide baselines, or as a kustomize folder."""

from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

import typer

from aggregator.cli import show
from aggregator.cli.options import Format, OneScenario, Output, ProfileName, chosen_profile
from aggregator.cli.propose import Include, chosen
from aggregator.errors import InputError
from aggregator.model.address import IPAddress, IPNetwork, canonical_address
from aggregator.policy.export.calico import DEFAULT_ORDER, DEFAULT_TIER, Aliases
from aggregator.policy.export.cilium import Names
from aggregator.policy.export.proof import Export
from aggregator.services.offline.export import Form, export
from aggregator.services.offline.load import load
from aggregator.services.offline.propose import propose


def register(app: typer.Typer) -> None:
    app.command("export")(export_policies)


def export_policies(  # noqa: PLR0917 - typer reads the command line from the signature
    scenario: OneScenario,
    form: Annotated[Form, typer.Option("--to", help="The form to write.")],
    proposals: Annotated[bool, typer.Option("--proposals", help="Proposals for the flows, not the policies.")] = False,
    include: Include = None,
    directory: Annotated[
        Path | None, typer.Option("--directory", "-d", metavar="DIR", help="Write files there, not to standard output.")
    ] = None,
    tier: Annotated[str, typer.Option("--tier", metavar="NAME", help="Calico: the tier.")] = DEFAULT_TIER,
    order: Annotated[int, typer.Option("--order", metavar="N", help="Calico: the order.")] = DEFAULT_ORDER,
    alias: Annotated[
        list[str] | None,
        typer.Option("--alias", metavar="NAME=CIDR,...", help="Calico: write these networks as a set with this name."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="ADDRESS=HOST", help="Cilium: write this address as toFQDNs of this host."),
    ] = None,
    output: Format = Output.YAML,
    profile: ProfileName = "generic",
) -> None:
    """Write policies in another form, judged by what was written: certified, or the differences."""
    judged_by = chosen_profile(profile)
    choices = chosen(include, None, None, None)
    pages = load(scenario)
    if len(pages) != 1:
        raise InputError(f"holds {len(pages)} scenarios, and one is exported", file=str(scenario))
    page = pages[0]
    policies = propose(page, choices, judged_by).policies if proposals else page.native
    if not policies:
        raise InputError("has no NetworkPolicies to export", file=str(scenario))
    found = export(
        policies,
        page.cluster,
        form,
        tier=tier,
        order=order,
        aliases=_aliases(alias or (), form),
        names=_names(name or (), form),
    )
    if directory is not None:
        _write(found, directory)
    if output is Output.JSON:
        show.data(_data(found), output)
    elif output is Output.TABLE:
        show.table(("FILE", "LINES"), [(f.path, str(f.text.count("\n"))) for f in found.files])
    elif directory is None:
        show.plain("---\n".join(f"# {f.path}: {found.label}\n{f.text}" for f in found.files))
    show.aside([found.label, *found.refused, *found.differences, *found.notes])
    raise typer.Exit(0 if found.certified else 1)


def _aliases(typed: Sequence[str], form: Form) -> Aliases:
    """NAME=CIDR,... as networks by name."""
    if typed and form is not Form.CALICO:
        raise InputError(f"--alias is for --to {Form.CALICO}: {form} has no named sets of networks")
    found: dict[str, tuple[IPNetwork, ...]] = {}
    for text in typed:
        alias, separator, networks = text.partition("=")
        if not separator or not alias or not networks:
            raise InputError(f"--alias {text!r} is not NAME=CIDR,...")
        try:
            found[alias] = (*found.get(alias, ()), *(ip_network(part.strip()) for part in networks.split(",")))
        except ValueError as exc:
            raise InputError(f"--alias {text!r}: {exc}") from exc
    return found


def _names(typed: Sequence[str], form: Form) -> Names:
    """ADDRESS=HOST as hosts by address."""
    if typed and form is not Form.CILIUM:
        raise InputError(f"--name is for --to {Form.CILIUM}: {form} has no rules by host name")
    found: dict[IPAddress, list[str]] = {}
    for text in typed:
        address, separator, host = text.partition("=")
        if not separator or not host:
            raise InputError(f"--name {text!r} is not ADDRESS=HOST")
        try:
            found.setdefault(canonical_address(address), []).append(host)
        except ValueError as exc:
            raise InputError(f"--name {text!r}: {exc}") from exc
    return found


def _write(found: Export, directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file in found.files:
            (directory / file.path).write_text(file.text, encoding="utf-8")
    except OSError as exc:
        raise InputError(f"cannot be written: {exc.strerror or exc}", file=str(directory)) from exc


def _data(found: Export) -> dict[str, object]:
    return {
        "kind": found.kind,
        "certified": found.certified,
        "checked": found.checked,
        "refused": list(found.refused),
        "differences": list(found.differences),
        "notes": list(found.notes),
        "files": [{"path": file.path, "text": file.text} for file in found.files],
    }
