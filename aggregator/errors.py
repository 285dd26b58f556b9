"""The aggregator's errors, one tree.

WattleError
├── InputError            what a person or a file said cannot be taken; names file, document and field
├── ConfigurationError    the program cannot start like this
├── StoreError            the database refused or is not there
├── IngestError           an agent's message cannot be accepted
└── ClusterError          the cluster view could not be read
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


class IngestError(WattleError):
    """An agent's message cannot be accepted."""


class ClusterError(WattleError):
    """The cluster view could not be read."""
