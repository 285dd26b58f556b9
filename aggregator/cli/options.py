"""The options that commands share, each said once.

Leaves: annotated types for typer, and what their texts become. A text that cannot be used is an InputError.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from aggregator.errors import InputError
from aggregator.model.protocol import Protocol
from aggregator.policy.profiles.known import PROFILES, profile_named
from aggregator.policy.profiles.profile import Profile


class Output(StrEnum):
    TABLE = "table"
    YAML = "yaml"
    JSON = "json"


Scenarios = Annotated[
    list[Path],
    typer.Argument(
        metavar="SCENARIO...",
        help="A cluster on one page (YAML or JSON), or a file or directory of plain manifests.",
        show_default=False,
    ),
]
OneScenario = Annotated[Path, typer.Argument(metavar="SCENARIO", help="A page, or manifests.", show_default=False)]
Format = Annotated[Output, typer.Option("--output", "-o", help="How to print.")]
ProfileName = Annotated[
    str,
    typer.Option("--profile", "-p", metavar="NAME", help=f"The network plug-in to judge by: {', '.join(PROFILES)}."),
]
From = Annotated[
    str | None, typer.Option("--from", metavar="POD|ADDRESS", help="The client: NAMESPACE/POD or an address.")
]
To = Annotated[str | None, typer.Option("--to", metavar="POD|ADDRESS", help="The server: NAMESPACE/POD or an address.")]
PortNumber = Annotated[int | None, typer.Option("--port", metavar="PORT", min=1, max=65535, help="The server's port.")]
ProtocolName = Annotated[str, typer.Option("--protocol", metavar="TCP|UDP|SCTP", help="The protocol.")]


def chosen_profile(name: str) -> Profile:
    return profile_named(name)


def chosen_protocol(text: str) -> Protocol:
    try:
        return Protocol(text.upper())
    except ValueError as exc:
        raise InputError(f"--protocol {text!r} is not TCP, UDP or SCTP") from exc
