"""Endpoints of a snapshot: from an address, or from two names, to the sides of a Connection.

Enters: a ClusterSnapshot and addresses. Leaves: PodEndpoint, NodeEndpoint, ServiceEndpoint or AddressEndpoint, judged
by who has the address in that snapshot.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address

from aggregator.model.address import IPAddress, canonical_address
from aggregator.model.cluster import ClusterSnapshot, Pod
from aggregator.model.endpoint import AddressEndpoint, Endpoint, NodeEndpoint, PodEndpoint, ServiceEndpoint

# A pod whose address nobody stated: an ipBlock's answer for it is UNKNOWN, except where every address gets the same.
UNSTATED_ADDRESS = IPv4Address(0)


def endpoint_of_address(cluster: ClusterSnapshot, address: str | IPAddress) -> Endpoint:
    """Who has this address now: a pod before a node (hostNetwork pods share theirs), a node, a Service, or nobody."""
    ip = canonical_address(address)
    own = [pod for pod in cluster.pods_by_ip.get(ip, ()) if not pod.host_network]
    if own:
        return PodEndpoint(pod=own[0], ip=ip)
    if (node := cluster.nodes_by_ip.get(ip)) is not None:
        return NodeEndpoint(node=node, ip=ip)
    for service in cluster.services:
        if ip in service.cluster_ips or ip in service.external_ips:
            return ServiceEndpoint(service=service, ip=ip)
    return AddressEndpoint(ip=ip)


def pod_endpoint(pod: Pod, *, family_of: Iterable[IPAddress] = ()) -> PodEndpoint:
    """The pod by the first address that shares a family with `family_of`, else by its first one."""
    families = {ip.version for ip in family_of}
    shared = [ip for ip in pod.ips if ip.version in families]
    return PodEndpoint(pod=pod, ip=(shared or [*pod.ips, UNSTATED_ADDRESS])[0])


def pair(cluster: ClusterSnapshot, src: Pod | IPAddress, dst: Pod | IPAddress) -> tuple[Endpoint, Endpoint]:
    """Both ends of a connection, in one address family where they can be."""
    src_ips = src.ips if isinstance(src, Pod) else (src,)
    dst_ips = dst.ips if isinstance(dst, Pod) else (dst,)
    source = pod_endpoint(src, family_of=dst_ips) if isinstance(src, Pod) else endpoint_of_address(cluster, src)
    used = (source.ip,) if source.ip in src_ips else ()
    destination = pod_endpoint(dst, family_of=used) if isinstance(dst, Pod) else endpoint_of_address(cluster, dst)
    return source, destination
