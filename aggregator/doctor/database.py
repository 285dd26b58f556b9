"""Is the database there, and is its schema ours?

Enters: its URL. Leaves: findings; no password is in them.
"""

from collections.abc import Iterator

from aggregator.doctor.finding import Finding, ill, poor, well
from aggregator.errors import ConfigurationError, StoreError
from aggregator.store.condition import DatabaseCondition, condition

CLOCK_SECONDS = 5.0


def check_database(url: str) -> Iterator[Finding]:
    try:
        found = condition(url)
    except ConfigurationError as exc:
        yield ill("database", str(exc), "correct WATTLE_DATABASE_URL")
        return
    except StoreError as exc:
        yield ill(
            "database",
            str(exc),
            "does it run, may this pod reach its port, and are user and password right? Agents spool meanwhile",
        )
        return
    yield from judge(found)


def judge(found: DatabaseCondition) -> Iterator[Finding]:
    if not found.known:
        yield ill(
            "database",
            f"{found.name} has the schema {found.revision}, which this version does not know",
            "a newer Wattle was here: run that version again, or restore the backup from before",
        )
    elif found.revision != found.newest:
        yield ill(
            "database",
            f"{found.name} has the schema {found.revision or '(none)'}, this version wants {found.newest}",
            "run `wattle-aggregator --migrate`; the aggregator does it, too, when it starts",
        )
    else:
        yield well("database", f"{found.name}, schema {found.revision}")
    if abs(found.ahead_seconds) > CLOCK_SECONDS:
        yield poor(
            "database clock",
            f"{found.ahead_seconds:+.0f} s from this one's",
            "keep the clocks of both machines right (chrony)",
        )
