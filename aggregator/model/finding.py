"""Finding: something a person should know, with the way out."""

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`code` is stable and documented; `subject` names the object or link; `way_out` says what to do."""

    code: str
    severity: Severity
    subject: str
    message: str
    way_out: str = ""

    def sort_key(self) -> tuple[str, str, str]:
        return (self.code, self.subject, self.message)
