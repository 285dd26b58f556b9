"""The network plug-ins that are known: by what each is recognised, and how its policies are switched off.

Facts were read in each project's own manifests (named at each entry), none was copied. Invariant: `off` speaks only of
what is written in a setting that the plug-in really has.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

GENERIC = "generic"
ConfigMaps = Callable[[str, str], Mapping[str, Any] | None]  # (namespace, name)


@dataclass(frozen=True, slots=True)
class Started:
    """A DaemonSet: arguments and NAME=value of its containers (None when they cannot be seen), and their images."""

    name: str
    settings: frozenset[str] | None = None
    images: tuple[str, ...] = ()

    def says(self, setting: str) -> bool:
        return setting in (self.settings or ())


def _not_off(_config_map: ConfigMaps, _started: Started) -> str:
    return ""


def _no_doubt(_started: Started) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    name: str
    profile: str
    daemons: tuple[str, ...]  # names of its DaemonSet
    images: tuple[str, ...] = ()  # ends of repositories, without registry and tag
    off: Callable[[ConfigMaps, Started], str] = _not_off  # why it is switched off, or ""
    doubt: Callable[[Started], str] = _no_doubt  # why it is not known whether it is on, or ""
    needs_settings: bool = False  # nothing can be said without the arguments
    never: str = ""  # why it cannot
    way_out: str = ""


def is_image(image: str, repositories: Iterable[str]) -> bool:
    """Whether an image is one of these, whatever registry or mirror it comes from."""
    repository, _ = split_image(image)
    return any(repository == known or repository.endswith(f"/{known}") for known in repositories)


def split_image(image: str) -> tuple[str, str]:
    """Repository and tag ("" where a digest alone names it)."""
    repository = image.partition("@")[0]
    head, colon, tag = repository.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (repository, "")


def _said(config_map: ConfigMaps, name: str, key: str) -> str:
    """A value of a ConfigMap in kube-system; "" where it says nothing."""
    return str(((config_map("kube-system", name) or {}).get("data") or {}).get(key, ""))


def _cilium_off(config_map: ConfigMaps, _started: Started) -> str:
    for key, value in (
        ("enable-policy", "never"),
        ("enable-k8s-networkpolicy", "false"),
        ("policy-audit-mode", "true"),
    ):
        if _said(config_map, "cilium-config", key) == value:
            return f"the ConfigMap kube-system/cilium-config says {key}: {value}"
    return ""


def _aws_off(config_map: ConfigMaps, started: Started) -> str:
    """The agent on the node enforces what the controller writes: both must be on."""
    if started.says("ENABLE_NETWORK_POLICY=false"):
        return "its environment says ENABLE_NETWORK_POLICY=false"
    if not started.says("--enable-network-policy=true"):
        return "its network policy agent does not run with --enable-network-policy=true"
    return _aws_controller_off(config_map, started)


def _aws_controller_off(config_map: ConfigMaps, _started: Started) -> str:
    said = _said(config_map, "amazon-vpc-cni", "enable-network-policy-controller")
    return "" if said in {"", "true"} else f"{_AWS_SWITCH}: {said}"


def _auto_mode_off(config_map: ConfigMaps, _started: Started) -> str:
    said = _said(config_map, "amazon-vpc-cni", "enable-network-policy-controller")
    return "" if said == "true" else f"{_AWS_SWITCH}: {said or 'nothing'}, where EKS Auto Mode needs true"


_AWS_SWITCH = "the ConfigMap kube-system/amazon-vpc-cni says enable-network-policy-controller"


def _kube_router_off(_config_map: ConfigMaps, started: Started) -> str:
    return "its argument --run-firewall=false switches policies off" if started.says("--run-firewall=false") else ""


def _weave_off(_config_map: ConfigMaps, started: Started) -> str:
    if started.says("EXPECT_NPC=0"):
        return "its environment says EXPECT_NPC=0: no policy controller"
    if started.images and not any(is_image(image, ("weave-npc",)) for image in started.images):
        return "its policy controller weave-npc does not run beside it"
    return ""


_KINDNET_SINCE = 20240813  # the kindnetd of kind 0.24.0, https://github.com/kubernetes-sigs/kind/issues/842


def _kindnet_off(_config_map: ConfigMaps, started: Started) -> str:
    if started.says("--network-policy=false"):
        return "its argument --network-policy=false switches policies off"
    for image in started.images:
        built = re.match(r"v(\d{8})", split_image(image)[1])
        if is_image(image, ("kindnetd",)) and built and int(built[1]) < _KINDNET_SINCE:
            return f"its release {split_image(image)[1]} has no NetworkPolicies (kind has them since 0.24)"
    return ""


def _kindnet_doubt(started: Started) -> str:
    """Kind gives it a date for a tag, the project itself a version and an argument."""
    dated = any(re.match(r"v(\d{8}|\d+\.\d+)", split_image(image)[1]) for image in started.images)
    return "" if dated or started.says("--network-policy=true") else "its image does not say which release it is"


AWS = Known(
    name="Amazon VPC CNI",  # aws/amazon-vpc-cni-k8s charts/aws-vpc-cni; aws/amazon-network-policy-agent
    profile="aws-vpc-cni",
    daemons=("aws-node",),
    images=("amazon-k8s-cni",),
    off=_aws_off,
    needs_settings=True,
    way_out="aws eks update-addon --cluster-name NAME --addon-name vpc-cni --configuration-values "
    """'{"enableNetworkPolicy": "true"}'""",
)
AWS_AUTO_MODE = Known(
    name="Amazon VPC CNI",  # https://docs.aws.amazon.com/eks/latest/userguide/auto-net-pol.html
    profile="aws-vpc-cni",
    daemons=(),
    off=_auto_mode_off,
    way_out="kubectl create configmap amazon-vpc-cni -n kube-system "
    "--from-literal=enable-network-policy-controller=true",
)
_FLANNEL_ONCE = tuple(f"kube-flannel-ds-{cpu}" for cpu in ("amd64", "arm64", "arm", "ppc64le", "s390x"))
_BESIDE = "install a policy engine beside it (kube-network-policies, Calico's policy-only mode), or another CNI"

# The one that enforces wins over the one that only connects: first in this order.
KNOWN = (
    Known(
        name="Cilium",  # cilium/cilium install/kubernetes/cilium; GKE Dataplane V2 calls it anetd
        profile="cilium",
        daemons=("cilium", "anetd"),
        images=("cilium/cilium", "mirrored-cilium-cilium"),
        off=_cilium_off,
        way_out="set enable-policy: default, enable-k8s-networkpolicy: true and policy-audit-mode: false in "
        "kube-system/cilium-config, then kubectl -n kube-system rollout restart daemonset/cilium",
    ),
    Known(
        name="Calico",  # projectcalico/calico manifests: calico.yaml, canal.yaml, calico-policy-only.yaml; its operator
        profile="calico",
        daemons=("calico-node", "canal", "rke2-canal"),
        images=("calico/node", "mirrored-calico-node", "hardened-calico"),
    ),
    Known(
        name="Antrea",  # antrea-io/antrea build/yamls/base/agent.yml
        profile="antrea",
        daemons=("antrea-agent",),
        images=("antrea/antrea-ubuntu", "antrea/antrea-agent-ubuntu", "antrea/antrea-agent-ubi"),
    ),
    Known(
        name="OVN-Kubernetes",  # ovn-org/ovn-kubernetes helm/ovn-kubernetes; OpenShift names it so, too
        profile="ovn-kubernetes",
        daemons=("ovnkube-node", "ovnkube-node-dpu-host"),
        images=("ovn-kube-ubuntu", "ovn-kube-fedora"),
    ),
    Known(
        name="kube-router",  # cloudnativelabs/kube-router daemonset/
        profile="kube-router",
        daemons=("kube-router",),
        images=("cloudnativelabs/kube-router", "k0sproject/kube-router"),
        off=_kube_router_off,
        way_out="kubectl -n kube-system edit daemonset/kube-router: --run-firewall=true",
    ),
    Known(
        name="Weave Net",  # weaveworks/weave prog/weave-kube: the DaemonSet and launch.sh
        profile="weave",
        daemons=("weave-net",),
        images=("weave-kube",),
        off=_weave_off,
        way_out="run its container weave-npc, and EXPECT_NPC=1 (the default), in kube-system's DaemonSet weave-net",
    ),
    AWS,
    Known(name="Azure NPM", profile=GENERIC, daemons=("azure-npm",), images=("azure-npm",)),
    Known(
        name="kube-network-policies",  # kubernetes-sigs/kube-network-policies install.yaml
        profile=GENERIC,
        daemons=("kube-network-policies",),
        images=("kube-network-policies",),
    ),
    Known(
        name="kindnet",  # kubernetes-sigs/kindnet install-kindnet.yaml; kindest/kindnetd in kind and minikube
        profile=GENERIC,
        daemons=("kindnet",),
        images=("kindest/kindnetd", "networking/kindnet", "aojea/kindnetd"),
        off=_kindnet_off,
        doubt=_kindnet_doubt,
        needs_settings=True,
        way_out="start it with --network-policy=true, or make the cluster anew with kind 0.24 or later",
    ),
    Known(
        name="flannel",  # flannel-io/flannel Documentation/kube-flannel.yml: one DaemonSet an architecture, once
        profile=GENERIC,
        daemons=("kube-flannel-ds", "kube-flannel", "flannel", *_FLANNEL_ONCE),
        images=("flannel/flannel", "coreos/flannel", "mirrored-flannelcni-flannel", "hardened-flannel"),
        never="flannel has no NetworkPolicies",
        way_out=_BESIDE,
    ),
    Known(
        name="Azure CNI",
        profile=GENERIC,
        daemons=("azure-cns",),
        never="Azure CNI has no NetworkPolicies of its own",
        way_out=_BESIDE,
    ),
)
