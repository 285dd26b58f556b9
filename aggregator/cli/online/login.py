"""`wattle login`: which aggregator, as whom; said once, kept as names."""

import sys
from dataclasses import replace
from typing import Annotated

import typer

from aggregator.cli import show
from aggregator.cli.online.access import ACCOUNT, SERVICE, access, opened, token_of, write_login

ShowToken = Annotated[
    bool, typer.Option("--show-token", help="Print a fresh token alone, for the web page or curl, and keep nothing.")
]


def register(app: typer.Typer) -> None:
    app.command("login")(login)


def login(context: typer.Context, *, show_token: ShowToken = False) -> None:
    """Try the way to an aggregator, say who one is there, and keep the way (never a token) for the next commands."""
    how = access(context)
    if show_token:
        sys.stdout.write(f"{token_of(how)}\n")
        return
    with opened(how) as rest:
        me = rest.get("/me")
        namespaces = rest.get("/namespaces", {"limit": 1})["total"]
    if not how.server:
        reach = how.reach()
        how = replace(
            how,
            context=reach.context,
            service=how.service or SERVICE,
            service_account=how.service_account or f"{reach.namespace}/{ACCOUNT}",
        )
    path = write_login(how)
    show.line(f"{me['name']} at the cluster {me['cluster']}: sees {namespaces} namespaces.")
    if me["development"]:
        show.line("Development mode: everybody is this person, nobody is asked for a token.", "bold yellow")
    show.line(f"Kept in {path}: {how.server or f'the Service {how.service}, through the context {how.context}'}.")
