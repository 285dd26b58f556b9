"""The stable codes of lint's findings. docs/findings.md explains each; a test proves that none is missing."""

from enum import StrEnum


class Code(StrEnum):
    # What a policy selects
    UNUSED = "unused"
    UNUSED_HOST_NETWORK = "unused-host-network"
    DORMANT = "dormant"
    POORLY_SCOPED = "poorly-scoped"
    MIXED_KINDS = "mixed-kinds"
    EQUAL_PRIORITY = "equal-priority"
    BASELINE_NEVER_ASKED = "baseline-never-asked"
    # What it does
    VACUOUS = "vacuous"
    ALLOWS_EVERYTHING = "allows-everything"
    REDUNDANT_POLICY = "redundant-policy"
    SHADOWED_POLICY = "shadowed-policy"
    REDUNDANT_RULE = "redundant-rule"
    SHADOWED_RULE = "shadowed-rule"
    MERGEABLE_CIDRS = "mergeable-cidrs"
    # What its rules match
    EMPTY_RULE = "empty-rule"
    EMPTY_PEER = "empty-peer"
    DORMANT_PEER = "dormant-peer"
    PEER_WITHOUT_FIELDS = "peer-without-fields"
    UNRESOLVED_NAMED_PORT = "unresolved-named-port"
    AND_OR_DASH = "and-or-dash"
    # How it is written
    IGNORED_DIRECTION = "ignored-direction"
    MISSING_POLICY_TYPES = "missing-policy-types"
    GENERATED_LABEL = "generated-label"
    UNSTABLE_LABEL = "unstable-label"
    IPBLOCK_ON_POD_IP = "ipblock-on-pod-ip"
    IPBLOCK_ON_SERVICE_IP = "ipblock-on-service-ip"
    INVALID = "invalid"
    HOST_BITS = "host-bits"
    MISSING_NAMESPACE = "missing-namespace"
    UNKNOWN_FIELD = "unknown-field"
    # How wide it is
    OVER_BROAD = "over-broad"
    METADATA_REACHABLE = "metadata-reachable"
    # What the network plug-in takes otherwise
    IPBLOCK_ON_HOST = "ipblock-on-host"
    END_PORT_IGNORED = "end-port-ignored"
    PROTOCOL_NOT_ENFORCED = "protocol-not-enforced"
    # What the whole set leaves
    DNS_BLOCKED = "dns-blocked"
    DNS_TCP_BLOCKED = "dns-tcp-blocked"
    HALF_OPEN = "half-open"
    UNCOVERED_INGRESS = "uncovered-ingress"
    UNCOVERED_EGRESS = "uncovered-egress"
