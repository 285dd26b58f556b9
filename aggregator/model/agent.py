"""Who an agent is proved to be, by what it presented when it connected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

CLUSTER_KEY = "wattle-cluster"
"""Metadata of a call: the cluster that it is about, where an aggregator knows several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What a connection brought along."""

    peer: str  # the transport's own name for the other side, e.g. "ipv4:10.0.0.7:51344"
    metadata: Mapping[str, str] = field(default_factory=dict)  # lower-case names, e.g. "authorization"
    certificate_names: Sequence[str] = ()  # subject alternative names of a verified client certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentIdentity:
    """The agents that a credential may speak for; None = every one."""

    cluster: str | None
    agent_id: str | None
    expires_at: datetime | None = None  # the credential ends then: the stream must be told to come back before

    def covers(self, cluster: str, agent_id: str) -> bool:
        return self.cluster in (None, cluster) and self.agent_id in (None, agent_id)


class AgentAuthenticator(Protocol):
    """Asked once a stream, before its first message is read."""

    async def authenticate(self, presented: Presented) -> AgentIdentity | None:
        """The identity, or None when the credential proves nothing."""
        ...
