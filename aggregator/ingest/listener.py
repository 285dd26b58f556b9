"""The listening port: how it is secured, and its credentials, which are read again whenever their files change."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import grpc
import grpc.aio

from aggregator.config import is_loopback
from aggregator.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaintextOnLoopback:
    """No TLS. Refused for any address but a loopback one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """TLS with this certificate. With `client_ca_file`, clients must show one, too (mutual TLS)."""

    certificate_file: Path
    key_file: Path
    client_ca_file: Path | None = None


ListenerSecurity = PlaintextOnLoopback | ServerTls


def add_port(server: grpc.aio.Server, listen: str, security: ListenerSecurity) -> int:
    """Open `listen` (HOST:PORT, port 0 = any); the port. Raises ConfigurationError."""
    try:
        match security:
            case PlaintextOnLoopback():
                if not is_loopback(listen) and not listen.startswith("unix:"):
                    message = f"{listen} can be reached from other machines: plaintext is for loopback only"
                    raise ConfigurationError(message)
                return server.add_insecure_port(listen)
            case ServerTls() as tls:
                return server.add_secure_port(listen, _credentials(tls))
            case other:
                assert_never(other)
    except RuntimeError as error:
        message = f"cannot listen on {listen}: is another aggregator running? ({error})"
        raise ConfigurationError(message) from error


def _credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Asked at every handshake. A file that cannot be read then (a rotation half done) leaves the last good ones."""
    read_at = _changed_at(tls)
    initial = _configuration(tls)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal read_at
        with contextlib.suppress(ConfigurationError):
            changed_at = _changed_at(tls)
            if changed_at != read_at:
                configuration = _configuration(tls)
                read_at = changed_at
                return configuration
        return None

    return grpc.dynamic_ssl_server_credentials(
        initial,
        fetch,  # type: ignore[arg-type]  # None = keep what there is, says the documentation; the stubs forgot it
        require_client_authentication=tls.client_ca_file is not None,
    )


def _files(tls: ServerTls) -> list[Path]:
    return [tls.certificate_file, tls.key_file, *([tls.client_ca_file] if tls.client_ca_file else [])]


def _changed_at(tls: ServerTls) -> tuple[int, ...]:
    try:
        return tuple(path.stat().st_mtime_ns for path in _files(tls))
    except OSError as error:
        message = f"cannot read {error.filename}: {error.strerror or error}"
        raise ConfigurationError(message) from error


def _configuration(tls: ServerTls) -> grpc.ServerCertificateConfiguration:
    try:
        certificate, key, *roots = [path.read_bytes() for path in _files(tls)]
    except OSError as error:
        message = f"cannot read {error.filename}: {error.strerror or error}"
        raise ConfigurationError(message) from error
    return grpc.ssl_server_certificate_configuration([(key, certificate)], roots[0] if roots else None)
