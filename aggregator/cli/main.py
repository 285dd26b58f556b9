"""`wattle`, also as `kubectl wattle`: the policy engine on files, with no server; and a client of a running aggregator.

Exit codes: 0 fine, 1 the answer is no (denied, findings, an expectation that does not hold), 2 bad input, a refusal, or
no answer. An error is one sentence that names file, document and field.
"""

import sys
from typing import Annotated

import typer

from aggregator.cli import check, doctor, export, judge, propose, rehearse, review, show
from aggregator.cli.online import access, keep, login, look, policy, say, verify
from aggregator.errors import WattleError

BAD_INPUT = 2

app = typer.Typer(
    name="wattle",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"wattle {_version()}")
        raise typer.Exit


@app.callback()
def _root(  # cli.online.access reads what it was given
    *,
    server: access.Server = "",
    kubeconfig: access.Kubeconfig = "",
    context_name: access.Context = "",
    service_account: access.Account = "",
    service: access.Service = "",
    token_file: access.TokenFile = "",
    ca_file: access.CaFile = "",
    cluster: access.Cluster = "",
    version: Annotated[  # its callback has printed it
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Least-privilege Kubernetes NetworkPolicies, woven from what was seen, and proved."""


def _version() -> str:
    from wattle import __version__  # noqa: PLC0415 - the wire package is asked for its version alone

    return __version__


for _module in (propose, judge, review, rehearse, check, export, login, look, policy, say, keep, verify, doctor):
    _module.register(app)


def main() -> None:
    """The entry point: every refusal is one sentence on standard error."""
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """The exit code."""
    try:
        app(args=arguments)
    except SystemExit as exc:  # typer says its own refusals and ends like this
        return exc.code if isinstance(exc.code, int) else BAD_INPUT
    except WattleError as exc:
        show.error(str(exc))
        return BAD_INPUT
    return 0
