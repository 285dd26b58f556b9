"""Which network plug-in runs, does it enforce policies, and are verdicts made under its profile?

Enters: an API. Leaves: findings.
"""

import time
from collections.abc import Iterator

from aggregator.cluster.cni import cni_findings, detected_profile, plugins
from aggregator.cluster.kinds import WATCHED
from aggregator.cluster.transport import KubernetesApi
from aggregator.cluster.view import ClusterView
from aggregator.doctor.finding import Finding, ill, poor, well
from aggregator.errors import ClusterError
from aggregator.model.finding import Severity

READ_SECONDS = 30.0


def check_network(api: KubernetesApi, *, cluster: str, profile: str) -> Iterator[Finding]:
    try:
        view = _view(api, cluster)
    except ClusterError as exc:
        yield poor("network plug-in", str(exc), "see what is said about rights")
        return
    yield from judge(view, profile)


def judge(view: ClusterView, profile: str) -> Iterator[Finding]:
    """`profile` is what the settings say."""
    for found in cni_findings(view):
        make = ill if found.severity is Severity.ERROR else poor
        yield make("network plug-in", found.message, found.way_out)
    enforcing = [plugin.name for plugin in plugins(view) if plugin.profile == detected_profile(view)]
    wanted = detected_profile(view)
    if wanted is None:
        return
    if wanted != profile:
        yield poor(
            "network plug-in",
            f"{', '.join(enforcing)} enforces, but verdicts are made under the profile {profile!r}",
            f"set WATTLE_PROFILE={wanted} (aggregator.settings.profile)",
        )
    else:
        yield well("network plug-in", f"{', '.join(enforcing)} enforces, profile {profile}")


def _view(api: KubernetesApi, cluster: str) -> ClusterView:
    view, now = ClusterView(cluster), time.time()
    for watched in WATCHED:
        if watched.kind in {"Node", "DaemonSet"} or watched.kind.startswith("ConfigMap"):

            def take(raw: dict[str, object], kind: str = watched.kind.partition(":")[0]) -> None:
                view.apply(kind, raw, at=now)

            api.each(watched.path, {"fieldSelector": watched.field_selector}, take, read_seconds=READ_SECONDS)
    return view
