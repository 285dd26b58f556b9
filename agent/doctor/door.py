"""Can the agent reach its aggregator, and do the two trust each other?

Enters: the configuration. Leaves: findings about the name, the port, the certificate and the token, in that order; the
first that fails ends them.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final

from agent.doctor.finding import Finding, ill, poor, well

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.config import AgentConfig

TIMEOUT_SECONDS: Final = 5.0
DAY_SECONDS: Final = 86_400
SOON_DAYS: Final = 14


def check_door(config: AgentConfig) -> Iterator[Finding]:
    host, _, port = config.server.rpartition(":")
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_SECONDS)
    except socket.gaierror as exc:
        yield ill("aggregator", f"{host} has no address: {exc.strerror}", "is the Service there, and cluster DNS?")
        return
    except OSError as exc:
        yield ill(
            "aggregator",
            f"{config.server}: {exc}",
            "does the aggregator run, and does a NetworkPolicy keep this pod from it?",
        )
        return
    with connection:
        if config.plaintext or config.ca_file is None:
            yield well("aggregator", f"{config.server} answers; without TLS, for trying out")
            return
        yield _certificate(connection, config.ca_file, config.server_name or host)
    if config.token_file is not None:
        yield check_token(config.token_file, time.time())


def _certificate(connection: socket.socket, ca_file: Path, name: str) -> Finding:
    try:
        context = ssl.create_default_context(cafile=ca_file)
        context.set_alpn_protocols(["h2"])
        with context.wrap_socket(connection, server_hostname=name) as secured:
            end = ssl.cert_time_to_seconds(str((secured.getpeercert() or {})["notAfter"]))
    except (OSError, ssl.SSLError) as exc:
        reason = getattr(exc, "verify_message", "") or exc
        return ill(
            "certificate",
            f"{name} shows one that is not trusted: {reason}",
            "is ca.crt that of this release? After a renewal the kubelet takes a minute to bring it",
        )
    days = int((end - time.time()) / DAY_SECONDS)
    if days < SOON_DAYS:
        return poor("certificate", f"ends in {days} days", "run `helm upgrade`, or look at cert-manager's Certificate")
    return well("certificate", f"trusted, {days} days left")


def check_token(file: Path, now: float) -> Finding:
    """A projected token is renewed by the kubelet: an old one means that it is not."""
    way_out = "is the projected token mounted? The kubelet renews it; look at its log"
    try:
        payload = file.read_text(encoding="ascii").strip().split(".")[1]
        end = float(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])
    except OSError as exc:
        return ill("token", f"{file}: {exc.strerror}", way_out)
    except (ValueError, KeyError, IndexError, TypeError):
        return well("token", f"{file}; it does not say when it ends")
    if end < now:
        return ill("token", f"{file} ended {(now - end) / 60:.0f} minutes ago", way_out)
    return well("token", f"{(end - now) / 60:.0f} minutes left")
