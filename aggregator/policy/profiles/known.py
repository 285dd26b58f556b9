"""The known network plug-ins. Each says only where it differs from GENERIC, and why.

None has been run against the plug-in itself yet: every one is MODELLED, and says so wherever a verdict is shown.
"""

from collections.abc import Mapping

from aggregator.errors import InputError
from aggregator.model.protocol import Protocol
from aggregator.policy.profiles.profile import Answer, Profile

GENERIC = Profile(
    name="generic",
    title="What Kubernetes' own conformance suite asserts",
    notes=("ipBlock matches pods, as the conformance suite has it; a plug-in may differ.",),
)

CALICO = Profile(
    name="calico",
    title="Calico",
    notes=("Calico's own policies of an earlier tier are judged before NetworkPolicies.",),
)

CILIUM = Profile(
    name="cilium",
    title="Cilium",
    ipblock_matches_pods=Answer.NO,  # cilium/cilium#9209: CIDR rules never apply to managed endpoints
    ipblock_matches_nodes=Answer.NO,  # host, remote-node and kube-apiserver are entities; policy-cidr-match-mode: nodes
    ipblock_matches_services=Answer.NO,
    admin_policies=Answer.UNDEFINED,  # depends on the release
    notes=(
        "ipBlock matches neither pods nor nodes: use toEntities of a CiliumNetworkPolicy for the API server and nodes.",
        "SCTP needs the setting sctp.enabled, which is off by default.",
        "CiliumNetworkPolicies add allows, and explicit denies that beat every allow.",
    ),
)

AWS_VPC_CNI = Profile(
    name="aws-vpc-cni",
    title="Amazon VPC CNI",
    ipblock_matches_services=Answer.UNDEFINED,  # the agent adds Service addresses of selected pods to its maps
    admin_policies=Answer.NO,
    notes=(
        "Pods without an owner are not enforced, and in standard mode pods start open.",
        "A Service's port must equal the container's port.",
        "At most 24 distinct ports for each protocol and selector.",
    ),
)

KUBE_ROUTER = Profile(
    name="kube-router",
    title="kube-router",
    admin_policies=Answer.NO,
)

OVN_KUBERNETES = Profile(
    name="ovn-kubernetes",
    title="OVN-Kubernetes",
    all_namespaces_match_host_network=Answer.UNDEFINED,  # it adds node addresses to that peer in some setups
    notes=("`namespaceSelector: {}` may match hostNetwork pods, too.",),
)

WEAVE = Profile(
    name="weave",
    title="Weave Net",
    end_port=Answer.NO,  # the project ended before endPort became stable
    enforced_protocols=frozenset({Protocol.TCP, Protocol.UDP}),
    admin_policies=Answer.NO,
    notes=("Unmaintained since 2024. endPort is ignored: only `port` is applied.",),
)

ANTREA = Profile(
    name="antrea",
    title="Antrea",
    notes=("Antrea's own policies of an earlier tier are judged before NetworkPolicies.",),
)

PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (GENERIC, CALICO, CILIUM, AWS_VPC_CNI, KUBE_ROUTER, OVN_KUBERNETES, WEAVE, ANTREA)
}


def profile_named(name: str) -> Profile:
    """The profile of this name. Raises InputError that lists the names there are."""
    profile = PROFILES.get(name)
    if profile is None:
        raise InputError(f"there is no profile {name!r}; there are {', '.join(PROFILES)}", field="profile")
    return profile
