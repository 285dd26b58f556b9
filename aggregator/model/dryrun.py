"""DryRunAnswer: what an API server says to one object that it is asked about and does not keep."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunAnswer:
    """`created`: none of this name is there. `accepted`: one would be replaced. `not-asked`: the right is missing."""

    outcome: Literal["created", "accepted", "refused", "not-asked"]
    message: str = ""  # the refusal, or the server's warnings


class DryRun(Protocol):
    """Who can be asked; cluster.dryrun.ServerSideDryRun is one. Blocking."""

    def try_policy(self, policy: Mapping[str, Any]) -> DryRunAnswer: ...
