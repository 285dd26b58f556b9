"""What people send: request bodies, read strictly.

Invariant: an unknown field is refused, not ignored; what cannot be a network, a port or a label key never gets further.
"""

from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from aggregator.model.address import IPNetwork
from aggregator.model.decision import Choice
from aggregator.model.protocol import Direction


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError as exc:
        raise ValueError(f"{exc}; write an address, or a CIDR without host bits") from exc
    return text


NetworkText = Annotated[str, Field(max_length=64, examples=["198.51.100.20/32"]), AfterValidator(_network)]
DomainText = Annotated[
    str,
    Field(
        max_length=253, pattern=r"^(\*\.)?([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
    ),
]
LabelKeyText = Annotated[str, Field(max_length=317, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9*])?$|^\*$")]
ProcessText = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.]*$")]
ReasonText = Annotated[str, Field(max_length=1000, description="Why, in words; kept with the decision")]
AliasName = r"^[a-z0-9]([-a-z0-9_.]{0,61}[a-z0-9])?$"


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: ReasonText = ""


class LinksBody(Body):
    """Rows to include or to leave out; null takes back what was said of them."""

    ids: list[Annotated[str, Field(pattern=r"^-?[0-9]{1,20}$")]] = Field(min_length=1, max_length=1000)
    choice: Literal["include", "exclude"] | None

    @property
    def chosen(self) -> Choice | None:
        return Choice(self.choice) if self.choice else None


class RuleBody(Body):
    """The general rule of one direction; null takes it back."""

    rule: Literal["observed", "block-all", "allow-namespace", "allow-all"] | None


class CidrBody(Body):
    """A CIDR and port that nobody was seen using. `exclude` takes it back."""

    direction: Literal["ingress", "egress"]
    cidr: NetworkText
    protocol: Literal["TCP", "UDP", "SCTP"] | None = Field(default="TCP", description="null: every protocol and port")
    port: int | None = Field(default=None, ge=1, le=65535, description="null: every port of the protocol")
    end_port: int | None = Field(default=None, ge=1, le=65535)
    choice: Literal["include", "exclude"] = "include"

    @model_validator(mode="after")
    def _ports(self) -> "CidrBody":
        if self.end_port is not None and (self.port is None or self.end_port < self.port):
            raise ValueError("end_port needs a port that is not above it")
        if self.protocol is None and self.port is not None:
            raise ValueError("a port needs a protocol")
        return self


class AliasBody(Body):
    """A name for addresses, CIDRs and domains. `allowed` includes every row that ends in it, for every workload."""

    networks: list[NetworkText] = Field(default=[], max_length=1000)
    domains: list[DomainText] = Field(default=[], max_length=100)
    allowed: bool = False
    extend: bool = Field(default=False, description="Keep what an alias of this name already covers")


class KeyLists(BaseModel):
    """Label keys, exact or with a trailing `*`."""

    model_config = ConfigDict(extra="forbid")

    include: list[LabelKeyText] = Field(default=[], max_length=200)
    exclude: list[LabelKeyText] = Field(default=[], max_length=200)


class LabelsBody(Body):
    workload_labels: KeyLists = KeyLists()
    namespace_labels: KeyLists = KeyLists()


class CidrsBody(Body):
    """The cluster's own ranges; an empty list goes back to what was discovered."""

    pod_cidrs: list[NetworkText] = Field(default=[], max_length=100)
    service_cidrs: list[NetworkText] = Field(default=[], max_length=100)
    node_cidrs: list[NetworkText] = Field(default=[], max_length=100)


class ProcessesBody(Body):
    names: list[ProcessText] = Field(default=[], max_length=20)


class DefaultDenyBody(Body):
    direction: Literal["ingress", "egress"]
    choice: Literal["include", "exclude"] = "include"


class FreezeBody(Body):
    """Whether the baseline is frozen at what is recorded now."""

    frozen: bool


class AnswerBody(Body):
    """What is said of events of drift: taken into the baseline and the next proposal, or left out of both."""

    ids: list[Annotated[str, Field(pattern=r"^-?[0-9]{1,19}$")]] = Field(min_length=1, max_length=1000)
    answer: Literal["accept", "leave-out"]


class WatchBody(Body):
    """Policies as YAML, or the scope whose proposal is meant: a workload, or a whole namespace."""

    yaml: str = Field(default="", max_length=250_000)
    namespace: str = Field(default="", pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$")
    kind: str = Field(default="", pattern=r"^([A-Z][A-Za-z0-9]{0,62})?$")
    name: str = Field(default="", pattern=r"^([a-z0-9]([-a-z0-9.:_]{0,251}[a-z0-9])?)?$")
    title: str = Field(default="", max_length=200, description="What its events call it")
    days: int = Field(default=7, ge=1, le=31, description="It ends by itself after so many days")

    @model_validator(mode="after")
    def _one_of_them(self) -> "WatchBody":
        if bool(self.yaml) == bool(self.namespace):
            raise ValueError("either yaml or a namespace (with kind and name: one workload) is needed")
        if bool(self.kind) != bool(self.name):
            raise ValueError("a workload has both a kind and a name")
        if self.kind and not self.namespace:
            raise ValueError("a workload has a namespace")
        return self


class SubmitBody(Body):
    """Why the proposal is submitted."""


class ApproveBody(Body):
    """Exactly the YAML of this digest is approved."""

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


class UndoBody(Body):
    """Why it is taken back."""


def direction_of(word: Literal["ingress", "egress"]) -> Direction:
    return Direction.INGRESS if word == "ingress" else Direction.EGRESS


def networks_of(texts: list[str]) -> tuple[IPNetwork, ...]:
    return tuple(ip_network(text) for text in texts)
