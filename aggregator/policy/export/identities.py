"""Who an address is to a plug-in that knows nodes and the API server apart from the rest of the world."""

from aggregator.model.address import IPAddress
from aggregator.model.cluster import ClusterSnapshot

API_SERVER_SERVICE = ("default", "kubernetes")


def api_server_addresses(cluster: ClusterSnapshot) -> tuple[IPAddress, ...]:
    """The endpoints of the Service default/kubernetes."""
    return tuple(
        dict.fromkeys(
            backend.ip
            for service in cluster.services
            if (service.namespace, service.name) == API_SERVER_SERVICE
            for backend in service.backends
        )
    )
