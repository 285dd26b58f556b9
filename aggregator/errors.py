"""The aggregator's errors, one tree.

WattleError
├── InputError            what a person or a file said cannot be taken; names file, document and field
├── ConfigurationError    the program cannot start like this
├── StoreError            the database refused or is not there
│   ├── StoreUnavailableError  not now: the same may succeed later
│   ├── StoreRefusedError      never: these values do not fit
│   ├── CursorMovedError       another stream has moved an agent's cursor; nothing was written
│   └── LinkCollisionError     two Links have one id; nothing was written
├── IngestError           an agent's message cannot be accepted
├── ClusterError          the cluster view could not be read
├── ServerError           the command line could not ask an aggregator, or got no answer that it understands
└── RequestError          a caller's question or decision cannot be answered as it stands
    ├── NotFoundError          there is no such thing, or nothing that this caller may see
    ├── ForbiddenError         the caller lacks the right
    ├── UnauthenticatedError   nobody knows who the caller is
    ├── ConflictError          it has been changed since the caller read it
    └── TooManyRequestsError   later
"""


class WattleError(Exception):
    """Something in Wattle went wrong."""


class InputError(WattleError):
    """The input cannot be used."""

    def __init__(self, message: str, *, file: str = "", document: int | None = None, field: str = "") -> None:
        self.reason = message  # without the place: what an outer reader wraps again, knowing more of the place
        self.file = file
        self.document = document
        self.field = field
        where = ", ".join(
            part
            for part in (
                file,
                f"document {document}" if document is not None else "",
                f"field {field}" if field else "",
            )
            if part
        )
        super().__init__(f"{where}: {message}" if where else message)


class ConfigurationError(WattleError):
    """The configuration cannot be used."""


class StoreError(WattleError):
    """The database could not do what was asked."""


class StoreUnavailableError(StoreError):
    """The database is not there or busy; the same may succeed later."""


class StoreRefusedError(StoreError):
    """The database will never take these values."""


class CursorMovedError(StoreError):
    """The cursors are not where they were expected: (cluster, agent, epoch) -> committed number, None when fenced."""

    def __init__(self, actual: dict[tuple[str, str, int], int | None]) -> None:
        super().__init__(f"{len(actual)} agent cursors have moved")
        self.actual = actual


class LinkCollisionError(StoreError):
    """Two canonical keys have the same id."""

    def __init__(self, link_ids: frozenset[int]) -> None:
        super().__init__(f"the ids {sorted(link_ids)} belong to other links already")
        self.link_ids = link_ids


class IngestError(WattleError):
    """An agent's message cannot be accepted."""


class ClusterError(WattleError):
    """The cluster view could not be read."""


class ServerError(WattleError):
    """An aggregator does not answer, or not as one."""


class RequestError(WattleError):
    """What a caller asked for cannot be done as it stands."""


class NotFoundError(RequestError):
    """There is no such thing, or nothing that this caller may see."""


class ForbiddenError(RequestError):
    """The caller lacks the right."""


class UnauthenticatedError(RequestError):
    """Nobody knows who the caller is."""


class ConflictError(RequestError):
    """It has been changed since the caller read it."""


class TooManyRequestsError(RequestError):
    """Later: `retry_after_seconds` says when."""

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
