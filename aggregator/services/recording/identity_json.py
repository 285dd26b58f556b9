"""FlowIdentity as JSON text and back: how a flow that waits for the cluster view is kept."""

import json
from ipaddress import ip_address

from aggregator.model.link import Confidence, Outcome
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.resolution import FlowIdentity


def identity_to_json(identity: FlowIdentity) -> str:
    return json.dumps(
        {
            "cluster": identity.cluster,
            "node": identity.node,
            "pod_uid": identity.pod_uid,
            "pod_namespace": identity.pod_namespace,
            "pod_name": identity.pod_name,
            "host_network": identity.host_network,
            "local_ip": None if identity.local_ip is None else str(identity.local_ip),
            "remote_ip": str(identity.remote_ip),
            "port": identity.port,
            "protocol": identity.protocol.value,
            "direction": identity.direction.value,
            "outcome": identity.outcome.value,
            "confidence": identity.confidence.value,
        },
        separators=(",", ":"),
    )


def identity_from_json(text: str) -> FlowIdentity:
    fields = json.loads(text)
    return FlowIdentity(
        cluster=fields["cluster"],
        node=fields["node"],
        pod_uid=fields["pod_uid"],
        pod_namespace=fields["pod_namespace"],
        pod_name=fields["pod_name"],
        host_network=fields["host_network"],
        local_ip=None if fields["local_ip"] is None else ip_address(fields["local_ip"]),
        remote_ip=ip_address(fields["remote_ip"]),
        port=fields["port"],
        protocol=Protocol(fields["protocol"]),
        direction=Direction(fields["direction"]),
        outcome=Outcome(fields["outcome"]),
        confidence=Confidence(fields["confidence"]),
    )
