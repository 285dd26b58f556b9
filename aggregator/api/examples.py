"""Examples of the OpenAPI document: one small shop, the same everywhere. A test validates each against its schema."""

from typing import Any

_SEEN = {"first_seen": "2026-11-11T08:02:41Z", "last_seen": "2026-11-20T13:29:45Z"}
_JAVAAPP = {
    "kind": "Deployment",
    "namespace": "example-java-app",
    "name": "javaapp",
    "labels": {"app": "javaapp"},
    "address": None,
    "masked": False,
}
_REDIS = {**_JAVAAPP, "kind": "StatefulSet", "name": "redis", "labels": {"app": "redis"}}
_SIDE = {"outcome": "default-allow", "policies": [], "text": "no policy limits it"}
_LINK = {
    "id": "-4616189618054758400",
    "direction": "Egress",
    "workload": _JAVAAPP,
    "peer": _REDIS,
    "protocol": "TCP",
    "port": 6379,
    "processes": ["java"],
    "services": ["example-java-app/redis:6379"],
    "connections": 31077,
    "tx_bytes": 8123456,
    "rx_bytes": 91234567,
    "failed_attempts": 0,
    "established": True,
    "confidence": "high",
    **_SEEN,
    "workload_pods": ["example-java-app/javaapp-7d9c5b8f6-4xk2p"],
    "peer_pods": ["example-java-app/redis-0"],
    "seen_by": ["client", "server"],
    "applied": {"verdict": "allowed", "text": "nothing limits it", "egress": _SIDE, "ingress": _SIDE},
    "proposal": {"included": True, "reason": "observed", "text": "seen, and both ends are known", "denied": False},
    "decision": None,
}

YAML = """\
apiVersion: "networking.k8s.io/v1"
kind: "NetworkPolicy"
metadata:
  name: "wattle-javaapp"
  namespace: "example-java-app"
spec:
  podSelector:
    matchLabels:
      "app": "javaapp"
  policyTypes:
  - "Egress"
  egress:
  - to:
    - podSelector:
        matchLabels:
          "app": "redis"
    ports:
    - protocol: "TCP"
      port: 6379
"""
_DIGEST = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
_CHOSEN = {
    "id": "-4616189618054758400",
    "src": "example-java-app/Deployment/javaapp",
    "dst": "example-java-app/StatefulSet/redis",
    "protocol": "TCP",
    "port": 6379,
    "reason": "observed",
    "text": "seen, and both ends are known",
    "denied": False,
}
CSV = "id,direction,workload,peer_kind\r\nid:-4616189618054758400,Egress,shop/Deployment/web,StatefulSet\r\n"


def _json(example: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"example": example}}}


def page(*items: dict[str, Any]) -> dict[str, Any]:
    return {"items": list(items), "total": len(items), "next_cursor": None}


NAMESPACE_PAGE = page(
    {
        "name": "example-java-app",
        "workloads": 6,
        "pods": 9,
        "links": 11,
        "last_seen": "2026-11-20T13:30:05Z",
        "policies": 2,
    }
)
WORKLOAD_PAGE = page(
    {
        "namespace": "example-java-app",
        "kind": "Deployment",
        "name": "javaapp",
        "pods": 2,
        "in_cluster": True,
        "observed": True,
        "ingress_links": 1,
        "egress_links": 5,
        "failed_links": 0,
        **_SEEN,
        "policies": [],
        "isolated": [],
    }
)
LINK_PAGE = page(_LINK)
A_PROPOSAL = {
    "scope": "example-java-app/Deployment/javaapp",
    "span": "all",
    "yaml": YAML,
    "digest": _DIGEST,
    "policies": ["example-java-app/wattle-javaapp"],
    "overwrites": [],
    "included": [_CHOSEN],
    "left_out": [],
    "synthesised": [],
    "widenings": [],
    "open_directions": [{"workload": "example-java-app/Deployment/javaapp", "direction": "Ingress"}],
    "declared": [],
    "findings": [],
    "certificate": {
        "holds": True,
        "profile": "generic",
        "digest": _DIGEST,
        "included": 1,
        "denied": 0,
        "undecided": [],
        "breaches": [],
        "opened": [],
        "evaluators": ["compiled", "plain"],
        "connections": 4,
        "disagreements": [],
    },
    "masked_links": 0,
    "decisions_version": 3,
}

EVENT_PAGE = page(
    {
        "id": "5188146770730811392",
        "kind": "new-link",
        "subject": "example-java-app/StatefulSet/redis",
        "link_id": "-4616189618054758400",
        "src": "example-java-app/Deployment/report",
        "dst": "example-java-app/StatefulSet/redis",
        "protocol": "TCP",
        "port": 6379,
        "text": "example-java-app/Deployment/report -> example-java-app/StatefulSet/redis TCP/6379 "
        "is not in the baseline of example-java-app/StatefulSet/redis",
        "address": None,
        "processes": ["redis-cli"],
        "src_pods": ["example-java-app/report-5c7d9-x2v4l"],
        "dst_pods": ["example-java-app/redis-0"],
        "services": ["example-java-app/redis:6379"],
        "nodes": [],
        "connections": 1,
        **_SEEN,
        "explanation": "",
        "cause": "",
        "command": "",
        "found_at": "2026-11-20T13:29:50Z",
        "ended": "",
        "ended_at": None,
        "answers": ["accept", "leave-out"],
    }
)

NAMESPACES = _json(NAMESPACE_PAGE)
WORKLOADS = _json(WORKLOAD_PAGE)
LINKS = _json(LINK_PAGE)
PROPOSAL = _json(A_PROPOSAL)
EVENTS = _json(EVENT_PAGE)
