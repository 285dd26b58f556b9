"""Reading what waits for the cluster view, and the addresses that a workload speaks with."""

from sqlalchemy import Connection, and_, select
from sqlalchemy.sql import func

from aggregator.model.workload import Address
from aggregator.store import schema
from aggregator.store.deltas import PendingFlow, PendingKey
from aggregator.store.keys import as_unsigned, cluster_id_of, parse_link_key


def oldest(connection: Connection, *, limit: int) -> list[PendingFlow]:
    table = schema.pending_flow
    rows = connection.execute(
        select(table, schema.cluster.c.name.label("cluster"))
        .join(schema.cluster, schema.cluster.c.cluster_id == table.c.cluster_id)
        .order_by(table.c.deadline_ms)
        .limit(limit)
    )
    return [
        PendingFlow(
            key=PendingKey(
                cluster=row.cluster, agent_id=row.agent_id, epoch=as_unsigned(row.epoch), seq=row.seq, row=row.row
            ),
            identity=row.identity,
            process=row.process,
            at_ms=row.at_ms,
            first_seen_ms=row.first_seen_ms,
            last_seen_ms=row.last_seen_ms,
            deadline_ms=row.deadline_ms,
            count=row._mapping["count"],  # noqa: SLF001 - Row.count is tuple's method
            tx_bytes=row.tx_bytes,
            rx_bytes=row.rx_bytes,
        )
        for row in rows
    ]


def count(connection: Connection, cluster: str) -> int:
    table = schema.pending_flow
    return (
        connection.execute(
            select(func.count()).select_from(table).where(table.c.cluster_id == cluster_id_of(cluster))
        ).scalar()
        or 0
    )


def external_addresses(connection: Connection, cluster: str, workload: tuple[str, str, str]) -> dict[str, set[str]]:
    table = schema.link
    found: dict[str, set[str]] = {"src": set(), "dst": set()}
    for own, other in (("src", "dst"), ("dst", "src")):
        rows = connection.execute(
            select(table.c.key).where(
                and_(
                    table.c.cluster_id == cluster_id_of(cluster),
                    table.c[f"{own}_namespace"] == workload[0],
                    table.c[f"{own}_kind"] == workload[1],
                    table.c[f"{own}_name"] == workload[2],
                    table.c[f"{other}_name"] == "",
                )
            )
        )
        for row in rows:
            link = parse_link_key(row.key)
            end = link.src if other == "src" else link.dst
            if isinstance(end, Address):
                found[other].add(str(end))
    return found
