"""Profile: what a network plug-in does where NetworkPolicy v1 leaves it undefined, as data.

`evaluate` and `compile_policies` read these answers and know no plug-in by name. UNDEFINED makes a verdict UNKNOWN
where the answer matters; it is never folded into allowed or denied.
"""

from dataclasses import dataclass
from enum import Enum

from aggregator.model.protocol import Protocol


class Answer(Enum):
    YES = "yes"
    NO = "no"
    UNDEFINED = "undefined"


class Standing(Enum):
    """RUN: checked against the plug-in itself. MODELLED: from its documentation, source or issue tracker."""

    RUN = "run"
    MODELLED = "modelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The fields are NP-20, NP-25, NP-27, NP-29 and NP-61; `notes` is what a person should know besides."""

    name: str
    title: str
    standing: Standing = Standing.MODELLED
    ipblock_matches_pods: Answer = Answer.YES
    ipblock_matches_nodes: Answer = Answer.YES
    ipblock_matches_services: Answer = Answer.NO
    all_namespaces_match_host_network: Answer = Answer.NO  # a peer with `namespaceSelector: {}`
    end_port: Answer = Answer.YES  # NO: `port` alone is applied
    enforced_protocols: frozenset[Protocol] = frozenset(Protocol)  # others isolate, but allow rules may not work
    admin_policies: Answer = Answer.YES
    notes: tuple[str, ...] = ()
