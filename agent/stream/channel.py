"""The channel to the aggregator, and who the agent proves to be.

Enters: paths of certificates and tokens. Leaves: a gRPC channel and the call's metadata.
Invariant: plaintext goes to loopback only, and only when it was asked for by name. Files are read at every connection,
so that a renewed certificate or token is used by the next one without a restart.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import assert_never

import grpc
import grpc.aio

from agent.errors import StreamError


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaintextLoopback:
    """No encryption, no proof: for one machine talking to itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MutualTls:
    """Both sides show a certificate; the agent's name is in its own."""

    ca_file: Path
    certificate_file: Path
    key_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTls:
    """The server shows a certificate, the agent a bearer token (in a cluster: a projected ServiceAccount token)."""

    ca_file: Path
    token_file: Path


ChannelSecurity = PlaintextLoopback | MutualTls | TokenTls

_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.enable_retries", 0),
    ("grpc.max_send_message_length", 8 << 20),
    ("grpc.max_receive_message_length", 1 << 20),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Our own loop backs off; a channel that waits on its own would hide the aggregator's return.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
]


def open_channel(
    target: str, security: ChannelSecurity, *, server_name: str = ""
) -> tuple[grpc.aio.Channel, list[tuple[str, str]]]:
    """A channel to `target` ("host:port") and the metadata of its call. Raises StreamError."""
    options = [*_OPTIONS, *([("grpc.ssl_target_name_override", server_name)] if server_name else [])]
    match security:
        case PlaintextLoopback():
            _require_loopback(target)
            return grpc.aio.insecure_channel(target, options=options), []
        case MutualTls():
            credentials = grpc.ssl_channel_credentials(
                root_certificates=_read(security.ca_file),
                private_key=_read(security.key_file),
                certificate_chain=_read(security.certificate_file),
            )
            return grpc.aio.secure_channel(target, credentials, options=options), []
        case TokenTls():
            credentials = grpc.ssl_channel_credentials(root_certificates=_read(security.ca_file))
            token = _read(security.token_file).decode("ascii", errors="replace").strip()
            return grpc.aio.secure_channel(target, credentials, options=options), [("authorization", f"Bearer {token}")]
        case _:
            assert_never(security)


def _require_loopback(target: str) -> None:
    host = target.rsplit(":", 1)[0].strip("[]")
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and not target.startswith("unix:"):
        message = f"{target} is not on this machine: plaintext is for loopback only; give a CA file and a token or key"
        raise StreamError(message)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"cannot read {path}: {error.strerror or error}"
        raise StreamError(message) from error
