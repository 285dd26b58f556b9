"""Protocol and Direction: the two smallest words of the vocabulary."""

from enum import Enum, StrEnum


class Protocol(StrEnum):
    """Transport protocol, by the name that Kubernetes gives it; `number` is IANA's."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"

    @property
    def number(self) -> int:
        return _NUMBERS[self]

    @classmethod
    def of_number(cls, number: int) -> "Protocol":
        """The protocol with this IANA number. Raises KeyError for another one."""
        return _BY_NUMBER[number]


_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}
_BY_NUMBER = {number: protocol for protocol, number in _NUMBERS.items()}


class Direction(Enum):
    """Seen from one endpoint: does the connection come in or go out (IPFIX information element 61)."""

    INGRESS = "Ingress"
    EGRESS = "Egress"

    @property
    def opposite(self) -> "Direction":
        return Direction.EGRESS if self is Direction.INGRESS else Direction.INGRESS
