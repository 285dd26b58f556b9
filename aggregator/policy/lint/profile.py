"""What one network plug-in does not do of what a policy says.

Enters: policies, the cluster, a Profile. Leaves: Findings; none under a profile that does everything.
"""

from collections.abc import Iterable, Iterator

from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.finding import Finding, Severity
from aggregator.model.networkpolicy import IPBlock, NetworkPolicy, PolicyPort
from aggregator.policy.export.identities import api_server_addresses
from aggregator.policy.lint.codes import Code
from aggregator.policy.lint.universe import all_rules, block_contains
from aggregator.policy.profiles.profile import Answer, Profile


def check_profile(policies: Iterable[NetworkPolicy], cluster: ClusterSnapshot, profile: Profile) -> Iterator[Finding]:
    """By rule: ports and blocks that this plug-in takes otherwise."""
    hosts = {ip: f"the node {node.name}" for node in cluster.nodes for ip in node.addresses}
    hosts |= dict.fromkeys(api_server_addresses(cluster), "the API server")
    for policy in policies:
        for direction, index, peers, ports in all_rules(policy):
            subject = f"{policy}:{direction.value.lower()}:{index}"
            for port in ports:
                yield from _port(subject, port, profile)
            if profile.ipblock_matches_nodes is Answer.YES:
                continue
            for block in (peer for peer in peers if isinstance(peer, IPBlock)):
                met = next((name for ip, name in hosts.items() if block_contains(block, ip)), "")
                if met:
                    yield Finding(
                        code=Code.IPBLOCK_ON_HOST,
                        severity=Severity.WARNING,
                        subject=f"{subject}:{block.cidr}",
                        message=f"{block.cidr} holds {met}, which {profile.title} does not match by ipBlock",
                        way_out="use the plug-in's own policy for nodes and the API server (wattle export --to cilium)",
                    )


def _port(subject: str, port: PolicyPort, profile: Profile) -> Iterator[Finding]:
    if port.end_port is not None and profile.end_port is not Answer.YES:
        yield Finding(
            code=Code.END_PORT_IGNORED,
            severity=Severity.WARNING,
            subject=f"{subject}:{port.port}",
            message=f"{profile.title} may apply {port.port} alone and ignore endPort {port.end_port}",
            way_out="list the ports one by one",
        )
    if port.protocol not in profile.enforced_protocols:
        yield Finding(
            code=Code.PROTOCOL_NOT_ENFORCED,
            severity=Severity.WARNING,
            subject=f"{subject}:{port.protocol}",
            message=f"{profile.title} may not allow {port.protocol} although the rule does",
            way_out="switch the protocol on in the plug-in, or do without",
        )
