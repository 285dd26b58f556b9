"""Which network plug-in a cluster runs, and whether it enforces NetworkPolicies.

Enters: the DaemonSets of a view, their arguments, and the plug-ins' own ConfigMaps. Leaves: Plugins found, the profile
that verdicts should be made under, and findings. Invariant: an unknown plug-in is called unknown, never enforcing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from aggregator.cluster.view import ClusterView
from aggregator.model.finding import Finding, Severity

GENERIC = "generic"


class Enforcement(Enum):
    ON = "on"
    OFF = "off"
    NEVER = "never"  # the plug-in cannot


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A plug-in that runs in the cluster. `profile` names one of policy.profiles."""

    name: str
    profile: str
    enforcement: Enforcement
    reason: str = ""  # why it does not enforce


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    name: str
    profile: str
    daemons: tuple[str, ...]  # names of its DaemonSet
    off: Callable[[ClusterView, frozenset[str]], str] = lambda _view, _settings: ""  # why it is switched off, or ""
    never: bool = False


def _cilium_off(view: ClusterView, _settings: frozenset[str]) -> str:
    mode = _config(view, "cilium-config", "enable-policy")
    return "the ConfigMap kube-system/cilium-config says enable-policy: never" if mode == "never" else ""


def _aws_off(view: ClusterView, settings: frozenset[str]) -> str:
    if "--enable-network-policy=true" in settings or _config(view, "amazon-vpc-cni", "enable-network-policy") == "true":
        return ""
    if _config(view, "amazon-vpc-cni", "enable-network-policy-controller") == "true":
        return ""
    return "its network policy agent is not enabled (--enable-network-policy=true)"


def _kube_router_off(_view: ClusterView, settings: frozenset[str]) -> str:
    return "its argument --run-firewall=false switches policies off" if "--run-firewall=false" in settings else ""


def _weave_off(_view: ClusterView, settings: frozenset[str]) -> str:
    return "its environment says EXPECT_NPC=0: no policy controller" if "EXPECT_NPC=0" in settings else ""


# The one that enforces wins over the one that only connects: first in this order.
_KNOWN = (
    _Known(name="Cilium", profile="cilium", daemons=("cilium", "anetd"), off=_cilium_off),
    _Known(name="Calico", profile="calico", daemons=("calico-node", "canal")),
    _Known(name="Antrea", profile="antrea", daemons=("antrea-agent",)),
    _Known(name="OVN-Kubernetes", profile="ovn-kubernetes", daemons=("ovnkube-node", "ovnkube-node-dpu-host")),
    _Known(name="kube-router", profile="kube-router", daemons=("kube-router",), off=_kube_router_off),
    _Known(name="Weave Net", profile="weave", daemons=("weave-net",), off=_weave_off),
    _Known(name="Amazon VPC CNI", profile="aws-vpc-cni", daemons=("aws-node",), off=_aws_off),
    _Known(name="Azure NPM", profile=GENERIC, daemons=("azure-npm",)),
    _Known(name="kube-network-policies", profile=GENERIC, daemons=("kube-network-policies",)),
    _Known(name="kindnet", profile=GENERIC, daemons=("kindnet",)),
    _Known(name="flannel", profile=GENERIC, daemons=("kube-flannel-ds", "kube-flannel", "flannel"), never=True),
    _Known(name="Azure CNI", profile=GENERIC, daemons=("azure-cns",), never=True),
)


def plugins(view: ClusterView) -> tuple[Plugin, ...]:
    """The network plug-ins that run, those that enforce first."""
    settings = _daemon_sets(view)
    found = []
    for known in _KNOWN:
        running = [name for name in known.daemons if name in settings]
        if running:
            off = known.off(view, frozenset().union(*(settings[name] for name in running)))
            enforcement = Enforcement.NEVER if known.never else Enforcement.OFF if off else Enforcement.ON
            reason = f"{known.name} has no NetworkPolicies" if known.never else off
            found.append(Plugin(name=known.name, profile=known.profile, enforcement=enforcement, reason=reason))
    return tuple(sorted(found, key=lambda plugin: plugin.enforcement is not Enforcement.ON))


def detected_profile(view: ClusterView) -> str | None:
    """The profile of the plug-in that enforces; None when none is known to."""
    return next((p.profile for p in plugins(view) if p.enforcement is Enforcement.ON), None)


def cni_findings(view: ClusterView) -> Iterator[Finding]:
    found = plugins(view)
    if any(plugin.enforcement is Enforcement.ON for plugin in found):
        return
    for plugin in found:
        yield Finding(
            code="cni-not-enforcing",
            severity=Severity.ERROR,
            subject=view.cluster,
            message=f"NetworkPolicies have no effect in this cluster: it runs {plugin.name}, and {plugin.reason}",
            way_out="switch the plug-in's network policies on"
            if plugin.enforcement is Enforcement.OFF
            else "install a policy engine beside it (kube-network-policies, Calico's policy-only mode), or another CNI",
        )
    if not found and _daemon_sets(view):
        yield Finding(
            code="cni-unknown",
            severity=Severity.INFO,
            subject=view.cluster,
            message="no known network plug-in was recognised, so it is not known whether NetworkPolicies are enforced",
            way_out="set WATTLE_PROFILE to the profile that fits, and try a policy on one workload first",
        )


def _daemon_sets(view: ClusterView) -> dict[str, frozenset[str]]:
    """Names of DaemonSets and what they were started with."""
    found = {p.workload.name: frozenset[str]() for p in view.pods.values() if p.workload.kind == "DaemonSet"}
    for facts in view.workload_facts.values():
        if facts.kind == "DaemonSet":
            found[facts.name] = frozenset(facts.settings)
    return found


def _config(view: ClusterView, name: str, key: str) -> str:
    config_map = view.config_map("kube-system", name)
    return str(((config_map or {}).get("data") or {}).get(key, ""))
