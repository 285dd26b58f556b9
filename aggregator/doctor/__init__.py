"""`wattle doctor`: everything that can keep an aggregator from its work, looked at one after the other.

Enters: the settings that the aggregator is started with. Leaves: findings. Nothing is changed.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from aggregator.cluster.transport import KubernetesApi
from aggregator.config import Settings
from aggregator.doctor.agents import check_agents
from aggregator.doctor.certificates import check_certificate
from aggregator.doctor.database import check_database
from aggregator.doctor.finding import Finding, State, ill, lines, well
from aggregator.doctor.network import check_network
from aggregator.doctor.rights import check_api
from aggregator.errors import ClusterError
from aggregator.store import open_store
from wattle import __version__

__all__ = ["Finding", "State", "examine", "lines"]


def examine(settings: Settings) -> Iterator[Finding]:
    now = datetime.now(tz=UTC)
    yield well("settings", f"Wattle {__version__}, cluster {settings.cluster}, source {settings.source}")
    if settings.tls_certificate_file is not None and settings.tls_key_file is not None:
        yield check_certificate(settings.tls_certificate_file, settings.tls_key_file, now)
    nodes = None
    if settings.source == "kubernetes":
        try:
            api = _api(settings)
        except ClusterError as exc:
            yield ill("API server", str(exc), "run it in the aggregator's pod, or set WATTLE_KUBECONFIG")
        else:
            yield from check_api(api)
            yield from check_network(api, cluster=settings.cluster, profile=settings.profile)
            nodes = _nodes(api)
            api.close()
    database = list(check_database(settings.database_url))
    yield from database
    if not any(found.state is State.ILL for found in database):
        store = open_store(settings.database_url)
        try:
            yield from check_agents(store.agents(settings.cluster), nodes, version=__version__, now=now)
        finally:
            store.close()


def _api(settings: Settings) -> KubernetesApi:
    if settings.kubeconfig is not None:
        return KubernetesApi.from_kubeconfig(settings.kubeconfig)
    return KubernetesApi.in_cluster()


def _nodes(api: KubernetesApi) -> list[str] | None:
    names: list[str] = []
    try:
        api.each("/api/v1/nodes", {}, lambda raw: names.append(raw["metadata"]["name"]), read_seconds=30.0)
    except ClusterError:
        return None
    return names
