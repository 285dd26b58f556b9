"""Access: which aggregator is asked, as whom, and through which door.

Enters: the options before the command, what `wattle login` kept, a kubeconfig. Leaves: a Rest, while a block runs.
Invariant: nothing secret is ever written to disk; `login` keeps names alone, every run asks for a token of its own.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from aggregator.cli.online.rest import Rest
from aggregator.errors import ClusterError, InputError, UnauthenticatedError

if TYPE_CHECKING:
    from aggregator.cluster.reach import Reach

SERVICE = "wattle/wattle-http"
ACCOUNT = "wattle"  # in the namespace of the context
PARAMETERS = {"context": "context_name"}  # `context` is typer's own

Server = Annotated[
    str, typer.Option("--server", envvar="WATTLE_SERVER", metavar="URL", help="Address of the aggregator.")
]
Kubeconfig = Annotated[
    str, typer.Option("--kubeconfig", metavar="FILE", help="Instead of $KUBECONFIG or ~/.kube/config.")
]
Context = Annotated[
    str, typer.Option("--context", envvar="WATTLE_CONTEXT", metavar="NAME", help="Context of the kubeconfig.")
]
Account = Annotated[
    str,
    typer.Option(
        "--service-account",
        envvar="WATTLE_SERVICE_ACCOUNT",
        metavar="NAMESPACE/NAME",
        help="Whose short-lived token is asked for.",
    ),
]
Service = Annotated[
    str,
    typer.Option("--service", envvar="WATTLE_SERVICE", metavar="NAMESPACE/NAME", help="The aggregator's Service."),
]
TokenFile = Annotated[
    str,
    typer.Option("--token-file", envvar="WATTLE_TOKEN_FILE", metavar="FILE", help="A token with the audience wattle."),
]
CaFile = Annotated[
    str, typer.Option("--ca-file", envvar="WATTLE_CA_FILE", metavar="FILE", help="Authority of the server's TLS.")
]
Cluster = Annotated[
    str,
    typer.Option("--cluster", envvar="WATTLE_CLUSTER", metavar="NAME", help="Where the aggregator knows several."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Names, none of them secret; "" = not said."""

    server: str = ""
    kubeconfig: str = ""
    context: str = ""
    service_account: str = ""
    service: str = ""
    token_file: str = ""
    ca_file: str = ""
    cluster: str = ""

    def reach(self) -> "Reach":
        """Raises ClusterError."""
        from aggregator.cluster.reach import Reach  # noqa: PLC0415  # offline commands do not pay for it

        path = Path(self.kubeconfig).expanduser() if self.kubeconfig else None
        return Reach.of(path, self.context or None)

    def namespace(self) -> str:
        """Of the context, where there is one. Raises InputError."""
        try:
            return self.reach().namespace
        except ClusterError as error:
            raise InputError("name a namespace: -n NAMESPACE") from error


def access(context: typer.Context) -> Access:
    """What was said before the command, and else what `wattle login` kept."""
    said = context.find_root().params  # the shell's completion runs no callback that could keep them elsewhere
    named = {field.name: said.get(PARAMETERS.get(field.name, field.name)) for field in fields(Access)}
    return replace(read_login(), **{name: str(value) for name, value in named.items() if value})


@contextlib.contextmanager
def connected(context: typer.Context) -> Iterator[Rest]:
    """The server that was named, or a port forwarded to the aggregator's Service."""
    with opened(access(context)) as rest:
        yield rest


@contextlib.contextmanager
def opened(how: Access) -> Iterator[Rest]:
    ca_file = Path(how.ca_file) if how.ca_file else None
    if how.server:
        yield Rest(how.server, lambda: token_of(how), ca_file=ca_file, cluster=how.cluster)
        return
    try:
        reach = how.reach()
    except ClusterError as error:
        raise InputError(f"which aggregator? name one with --server URL; {error}") from error
    namespace, name = pair(how.service or SERVICE, "--service")
    with contextlib.closing(reach), reach.forwarded(namespace, name) as port:
        yield Rest(f"http://127.0.0.1:{port}", lambda: token_of(how), cluster=how.cluster)


def token_of(how: Access) -> str:
    """From the file that was named, else a fresh one of the ServiceAccount. Raises WattleError."""
    if how.token_file:
        try:
            return Path(how.token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise InputError(f"cannot be read: {exc}", file=how.token_file) from exc
    try:
        reach = how.reach()
    except ClusterError as error:
        raise UnauthenticatedError(f"the server asks for a token, and there is no way to one: {error}") from error
    with contextlib.closing(reach):
        account = how.service_account or f"{reach.namespace}/{ACCOUNT}"
        return reach.token(*pair(account, "--service-account"))


def pair(text: str, option: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise InputError(f"{option} {text!r} is not NAMESPACE/NAME")
    return namespace, name


def login_file() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "wattle" / "login.yaml"


def read_login() -> Access:
    path = login_file()
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return Access()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise InputError(f"cannot be read: {exc}; `wattle login` writes it anew", file=str(path)) from exc
    known = {field.name for field in fields(Access)}
    if not isinstance(said, dict) or not set(said) <= known:
        raise InputError("is not what `wattle login` writes; it writes it anew", file=str(path))
    return Access(**{name: str(value) for name, value in said.items()})


def write_login(how: Access) -> Path:
    path = login_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({k: v for k, v in asdict(how).items() if v}), encoding="utf-8")
    return path
