"""What an installation keeps for itself: one secret, made when it is first asked for, the same for every aggregator."""

import secrets

from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError

from aggregator.store import schema
from aggregator.store.database import for_writing
from aggregator.store.merging import translated

_NAME = "masking-key"
_BYTES = 32


def masking_key(engine: Engine) -> bytes:
    """Makes records, tags and ids of masked rows unguessable, for who does not read the database itself."""
    wanted = select(schema.note.c.value).where(schema.note.c.name == _NAME)
    with translated(), engine.connect() as connection:
        found = connection.execute(wanted).scalar()
    if found is None:
        _make(engine)
        with translated(), engine.connect() as connection:
            found = connection.execute(wanted).scalar_one()
    return bytes.fromhex(found)


def _make(engine: Engine) -> None:
    try:
        with for_writing(engine).begin() as connection:
            connection.execute(schema.note.insert(), {"name": _NAME, "value": secrets.token_hex(_BYTES)})
    except IntegrityError:
        return  # another aggregator was first
