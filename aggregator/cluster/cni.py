"""Which network plug-in a cluster runs, and whether it enforces NetworkPolicies.

Enters: the DaemonSets of a view with their images, arguments and environment, and the plug-ins' own ConfigMaps. Leaves:
Plugins found, the profile that verdicts should be made under, and findings. Invariant: a plug-in that is not known, or
whose settings cannot be seen, is called unknown, never enforcing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from aggregator.cluster.cniknown import AWS, AWS_AUTO_MODE, KNOWN, Known, Started, is_image
from aggregator.cluster.view import ClusterView
from aggregator.model.finding import Finding, Severity


class Enforcement(Enum):
    ON = "on"
    OFF = "off"
    NEVER = "never"  # the plug-in cannot
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A plug-in that runs in the cluster. `profile` names one of policy.profiles."""

    name: str
    profile: str
    enforcement: Enforcement
    reason: str = ""  # why it does not enforce, or why that is not known
    way_out: str = ""


def plugins(view: ClusterView) -> tuple[Plugin, ...]:
    """The network plug-ins that run, those that enforce first."""
    running = _daemon_sets(view)
    found = [_plugin(view, known, started) for known in KNOWN if (started := _started(known, running))]
    if _is_auto_mode(view) and not any(plugin.name == AWS.name for plugin in found):
        found.append(_plugin(view, AWS_AUTO_MODE, [Started("", settings=frozenset(), images=())]))
    return tuple(sorted(found, key=lambda plugin: plugin.enforcement is not Enforcement.ON))


def detected_profile(view: ClusterView) -> str | None:
    """The profile of the plug-in that enforces; None when none is known to."""
    return next((p.profile for p in plugins(view) if p.enforcement is Enforcement.ON), None)


def cni_findings(view: ClusterView) -> Iterator[Finding]:
    found = plugins(view)
    if any(plugin.enforcement is Enforcement.ON for plugin in found):
        return
    for plugin in found:
        if plugin.enforcement is Enforcement.UNKNOWN:
            yield _unknown(
                view.cluster, f"it is not known whether {plugin.name} enforces NetworkPolicies here: {plugin.reason}"
            )
        else:
            yield Finding(
                code="cni-not-enforcing",
                severity=Severity.ERROR,
                subject=view.cluster,
                message=f"NetworkPolicies have no effect in this cluster: it runs {plugin.name}, and {plugin.reason}",
                way_out=plugin.way_out,
            )
    if not found and _daemon_sets(view):
        yield _unknown(
            view.cluster,
            "no known network plug-in was recognised, so it is not known whether NetworkPolicies are enforced",
        )


def _unknown(cluster: str, message: str) -> Finding:
    return Finding(
        code="cni-unknown",
        severity=Severity.INFO,
        subject=cluster,
        message=message,
        way_out="set WATTLE_PROFILE to the profile that fits, and try a policy on one workload first",
    )


def _plugin(view: ClusterView, known: Known, started: Sequence[Started]) -> Plugin:
    enforcement, reason = _enforcement(view, known, started)
    way_out = known.way_out if enforcement in {Enforcement.OFF, Enforcement.NEVER} else ""
    return Plugin(name=known.name, profile=known.profile, enforcement=enforcement, reason=reason, way_out=way_out)


def _enforcement(view: ClusterView, known: Known, started: Sequence[Started]) -> tuple[Enforcement, str]:
    if known.never:
        return Enforcement.NEVER, known.never
    if known.needs_settings and any(one.settings is None for one in started):
        return Enforcement.UNKNOWN, f"its DaemonSet {started[0].name} is not in the view, only pods of it are"
    for one in started:
        if reason := known.off(view.config_map, one):
            return Enforcement.OFF, reason
    for one in started:
        if reason := known.doubt(one):
            return Enforcement.UNKNOWN, reason
    return Enforcement.ON, ""


def _started(known: Known, running: Sequence[Started]) -> list[Started]:
    """By the DaemonSet's name, or by what it runs: distributions give it names of their own."""
    return [
        one
        for one in running
        if one.name in known.daemons or any(is_image(image, known.images) for image in one.images)
    ]


def _daemon_sets(view: ClusterView) -> list[Started]:
    """What runs on the nodes; a DaemonSet that only its pods show has no settings that are known."""
    found = {
        (p.namespace, p.workload.name): Started(p.workload.name)
        for p in view.pods.values()
        if p.workload.kind == "DaemonSet"
    }
    for facts in view.workload_facts.values():
        if facts.kind == "DaemonSet":
            key = (facts.namespace, facts.name)
            found[key] = Started(facts.name, settings=frozenset(facts.settings), images=facts.images)
    return [found[key] for key in sorted(found)]


def _is_auto_mode(view: ClusterView) -> bool:
    """EKS Auto Mode: the plug-in is part of the node, so no DaemonSet shows it."""
    return any(("eks.amazonaws.com/compute-type", "auto") in facts.node.labels for facts in view.nodes.values())
