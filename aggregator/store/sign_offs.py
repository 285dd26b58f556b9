"""SignOffs: which proposal of a scope was submitted, and who approved it; fixed by the digest of its YAML.

Invariant: an approval is written only beside the digest that it was given for, and never by who submitted it.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, select, update

from aggregator.store import schema
from aggregator.store.database import for_writing
from aggregator.store.keys import cluster_id_of, milliseconds, moment
from aggregator.store.merging import translated
from aggregator.store.upsert import Upserts

_VALUES = ("digest", "submitted_by", "submitted_ms", "reason", "approved_by", "approved_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOff:
    scope: str
    digest: str
    submitted_by: str
    submitted_at: datetime
    reason: str = ""
    approved_by: str = ""  # "" = by nobody yet
    approved_at: datetime | None = None


class SignOffs:
    """Blocking and thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = for_writing(engine)
        self._submit = Upserts(engine.dialect.name).replacing(schema.sign_off, _VALUES)

    def of(self, cluster: str, scope: str) -> SignOff | None:
        table = schema.sign_off
        wanted = select(table).where(table.c.cluster_id == cluster_id_of(cluster), table.c.scope == scope)
        with translated(), self._engine.connect() as connection:
            row = connection.execute(wanted).one_or_none()
        if row is None:
            return None
        return SignOff(
            scope=row.scope,
            digest=row.digest,
            submitted_by=row.submitted_by,
            submitted_at=moment(row.submitted_ms),
            reason=row.reason,
            approved_by=row.approved_by,
            approved_at=moment(row.approved_ms) if row.approved_by else None,
        )

    def submit(self, cluster: str, said: SignOff) -> None:
        """In the place of whatever was submitted for the scope before."""
        row = {
            "cluster_id": cluster_id_of(cluster),
            "scope": said.scope,
            "digest": said.digest,
            "submitted_by": said.submitted_by,
            "submitted_ms": milliseconds(said.submitted_at),
            "reason": said.reason,
            "approved_by": "",
            "approved_ms": 0,
        }
        with translated(), self._writer.begin() as connection:
            connection.execute(self._submit, row)

    def approve(self, cluster: str, scope: str, digest: str, *, by: str, at: datetime) -> bool:
        """False when this digest is not what is submitted now, is approved already, or was submitted by the same."""
        table = schema.sign_off
        change = (
            update(table)
            .where(
                table.c.cluster_id == cluster_id_of(cluster),
                table.c.scope == scope,
                table.c.digest == digest,
                table.c.submitted_by != by,
                table.c.approved_by == "",
            )
            .values(approved_by=by, approved_ms=milliseconds(at))
        )
        with translated(), self._writer.begin() as connection:
            return connection.execute(change).rowcount == 1
