"""Authenticators: what a connection presents becomes the agents that it may speak for.

Enters: Presented. Leaves: AgentIdentity, or None. Invariant: no secret is kept or compared in the clear. The one that
asks a Kubernetes API server (TokenReview) lives in cluster/, behind the same Protocol.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path

from aggregator.errors import ConfigurationError
from aggregator.model.agent import CLUSTER_KEY, AgentAuthenticator, AgentIdentity, Presented

_CERTIFICATE_NAME = re.compile(r"spiffe://wattle/(?P<cluster>[a-z0-9.-]+)/agent/(?P<agent>[a-z0-9.-]+|\*)")
_TOKEN_LINE = re.compile(r"(?P<hash>[0-9a-f]{64})\s+(?P<cluster>\S+)\s+(?P<agent>\S+)")


class LoopbackPlaintext:
    """Every agent on this machine, for development: only ever combined with a loopback address."""

    async def authenticate(self, presented: Presented) -> AgentIdentity | None:
        loopback = presented.peer.startswith(("ipv4:127.", "ipv6:%5B::1%5D", "ipv6:[::1]", "unix:"))
        return AgentIdentity(cluster=None, agent_id=None) if loopback else None


class MutualTLS:
    """A client certificate's URI name spiffe://wattle/CLUSTER/agent/NODE; NODE * speaks for every node of the
    cluster.
    """

    async def authenticate(self, presented: Presented) -> AgentIdentity | None:
        for name in presented.certificate_names:
            match = _CERTIFICATE_NAME.fullmatch(name)
            if match is not None:
                agent = match["agent"]
                return AgentIdentity(cluster=match["cluster"], agent_id=None if agent == "*" else agent)
        return None


class ByCluster:
    """Each cluster's own authenticator, by what the agent says it belongs to: a token is shown to no other cluster's
    API server. What it proves is checked against Hello all the same.
    """

    def __init__(self, authenticators: Mapping[str, AgentAuthenticator], *, home: str) -> None:
        self._authenticators = authenticators
        self._home = home

    async def authenticate(self, presented: Presented) -> AgentIdentity | None:
        cluster = presented.metadata.get(CLUSTER_KEY) or self._home
        authenticator = self._authenticators.get(cluster)
        identity = await authenticator.authenticate(presented) if authenticator is not None else None
        return identity if identity is not None and identity.cluster in {None, cluster} else None


class StaticToken:
    """Bearer tokens from a file that holds their SHA-256: lines "HASH CLUSTER AGENT", where AGENT may be *.

    The file is read again when it has changed, so that a token can be added or withdrawn without a restart.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at = -1
        self._identities: dict[bytes, AgentIdentity] = {}
        self._refresh()

    async def authenticate(self, presented: Presented) -> AgentIdentity | None:
        self._refresh()
        scheme, _, token = presented.metadata.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return None
        digest = hashlib.sha256(token.encode()).digest()
        found = None
        for known, identity in self._identities.items():
            if hmac.compare_digest(known, digest):
                found = identity
        return found

    def _refresh(self) -> None:
        try:
            changed_at = self._path.stat().st_mtime_ns
            if changed_at == self._read_at:
                return
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            message = f"cannot read the agents' token hashes in {self._path}: {error.strerror or error}"
            raise ConfigurationError(message) from error
        identities: dict[bytes, AgentIdentity] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _TOKEN_LINE.fullmatch(line.strip())
            if match is None:
                message = f'{self._path}, line {number}: expected "SHA256-IN-HEX CLUSTER AGENT"'
                raise ConfigurationError(message)
            agent = match["agent"]
            identities[bytes.fromhex(match["hash"])] = AgentIdentity(
                cluster=match["cluster"], agent_id=None if agent == "*" else agent
            )
        self._identities, self._read_at = identities, changed_at
