"""What is one cluster's own, wired: its view, its connection, who may ask, who answers. One of each for every cluster.

Enters: Settings, the Store. Leaves: Assembled parts by the cluster's name, the home cluster first. Invariant: nothing
of one cluster is handed to another: views, tokens, rights and decisions stay apart; the store tells them by name.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aggregator.alerting.sending import Outlet
from aggregator.api.asking import Answering, Authenticator
from aggregator.api.rest import Development, NobodyYet
from aggregator.cluster.cni import Enforcement, detected_profile, plugins
from aggregator.cluster.dryrun import ServerSideDryRun
from aggregator.cluster.identify import TokenReviewAuthenticator
from aggregator.cluster.manifests import ManifestSource
from aggregator.cluster.source import ClusterSource
from aggregator.cluster.transport import KubernetesApi
from aggregator.cluster.watch import KubernetesSource
from aggregator.cluster.yamltext import load_documents
from aggregator.config import CLUSTER_NAME, Settings
from aggregator.errors import ClusterError, ConfigurationError
from aggregator.ingest.authenticate import ByCluster, LoopbackPlaintext, MutualTLS, StaticToken
from aggregator.model.agent import AgentAuthenticator
from aggregator.policy.profiles.known import GENERIC, profile_named
from aggregator.policy.profiles.profile import Profile
from aggregator.services.authority.kubernetes import TokenReviews
from aggregator.services.following import Following
from aggregator.services.keeping.drifting import Drifting
from aggregator.services.keeping.enforcing import Enforcing, EnforcingSources, PluginState
from aggregator.services.keeping.keeper import Keeper
from aggregator.services.keeping.shadowing import Shadowing
from aggregator.services.keeping.telling import Telling
from aggregator.services.recording.openings import Openings
from aggregator.services.review import Review, Sources
from aggregator.store import Store
from aggregator.store.decisions import DecisionLog
from aggregator.store.events import EventLog
from aggregator.store.installation import masking_key
from aggregator.store.overview import Overview
from aggregator.store.sightings import days_seen
from aggregator.store.sign_offs import SignOffs
from aggregator.store.watches import PolicyWatches

Connect = Callable[[], KubernetesApi]
"""A connection of one's own to a cluster's API server. Raises ClusterError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """One cluster. `connect` is None where no API server is behind it."""

    source: ClusterSource
    connect: Connect | None
    following: Following
    keeper: Keeper
    answering: Answering


def assemble(settings: Settings, store: Store, openings: Openings) -> Mapping[str, Assembled]:
    """Every cluster by its name, the home cluster first. Raises ConfigurationError, ClusterError."""
    decisions = DecisionLog(store.engine)
    found: dict[str, Assembled] = {}
    for name, connect in _clusters(settings):
        if name in found:
            raise ConfigurationError(f"the cluster {name!r} is configured twice: by WATTLE_CLUSTER and a kubeconfig")
        source = _source(settings, store, name, connect)
        events = EventLog(store.engine)
        drifting = Drifting(store, decisions, events, name)
        review = _review(settings, store, source, decisions, drifting, connect)
        seen_by = _seen_by(settings, source, store)
        enforcing = Enforcing(seen_by, openings, events, name)
        shadowing = Shadowing(
            store, events, name, snapshot=seen_by.snapshot, profile=seen_by.profile, read=load_documents
        )
        keeper = Keeper(
            store=store,
            events=events,
            cluster=name,
            always={"enforcement": enforcing.step},
            leading={
                "drift": drifting.step,
                "enforcement-upkeep": enforcing.upkeep,
                "shadow": shadowing.step,
                "telling": _telling(settings, events, name).step,
            },
            interval_seconds=settings.keeping_seconds,
        )
        found[name] = Assembled(
            source=source,
            connect=connect,
            following=Following(store, decisions, name),
            keeper=keeper,
            answering=Answering(review=review, authenticator=_callers(settings, connect)),
        )
    return found


def agent_authenticator(settings: Settings, clusters: Mapping[str, Assembled]) -> AgentAuthenticator:
    """Who an agent is; with tokens of Kubernetes, its own cluster's API server says so."""
    if settings.development:
        return LoopbackPlaintext()
    if settings.agent_service_account:
        return ByCluster(
            {
                name: TokenReviewAuthenticator(
                    cluster=name,
                    post=one.connect().post,
                    service_account=settings.agent_service_account,
                    node_of=one.source.view.node_of_pod,
                )
                for name, one in clusters.items()
                if one.connect is not None and isinstance(one.source, KubernetesSource)
            },
            home=settings.cluster,
        )
    if settings.agent_token_file is not None:
        return StaticToken(settings.agent_token_file)
    return MutualTLS()


def _clusters(settings: Settings) -> Iterator[tuple[str, Connect | None]]:
    yield settings.cluster, (lambda: _home(settings)) if settings.source == "kubernetes" else None
    if settings.kubeconfigs is None:
        return
    if not settings.kubeconfigs.is_dir():
        raise ConfigurationError(f"WATTLE_KUBECONFIGS={settings.kubeconfigs} is no directory: mount the Secret there")
    for path in sorted(settings.kubeconfigs.iterdir()):
        if path.name.startswith("."):  # the kubelet's own links beside the keys of a mounted Secret
            continue
        if not re.fullmatch(CLUSTER_NAME, path.name):
            raise ConfigurationError(
                f"WATTLE_KUBECONFIGS: {path.name!r} is no name for a cluster: DNS-1123, lower case"
            )
        yield path.name, lambda path=path: _by_kubeconfig(path)  # type: ignore[misc]


def _home(settings: Settings) -> KubernetesApi:
    if settings.kubeconfig is not None:
        return KubernetesApi.from_kubeconfig(settings.kubeconfig)
    return KubernetesApi.in_cluster()


def _by_kubeconfig(path: Path) -> KubernetesApi:
    try:
        return KubernetesApi.from_kubeconfig(path)
    except ClusterError as error:
        raise ConfigurationError(f"WATTLE_KUBECONFIGS: {path}: {error}") from error


def _source(settings: Settings, store: Store, name: str, connect: Connect | None) -> ClusterSource:
    if connect is not None:
        return KubernetesSource(connect(), cluster=name, grace_seconds=settings.grace_seconds, store=store)
    if settings.manifests is None:
        raise ConfigurationError("WATTLE_SOURCE=manifests needs WATTLE_MANIFESTS")
    return ManifestSource(settings.manifests, cluster=name, grace_seconds=settings.grace_seconds, store=store)


def _callers(settings: Settings, connect: Connect | None) -> Authenticator:
    """Who is behind a token: the cluster's own API server says so, or everybody is the developer on loopback."""
    if settings.development:
        return Development()
    return NobodyYet() if connect is None else TokenReviews(connect().post, time.monotonic)


def _seen_by(settings: Settings, source: ClusterSource, store: Store) -> EnforcingSources:
    """What enforcement is judged by: the profile that was set, else that of the plug-in that was recognised."""

    def profile() -> Profile:
        detected = detected_profile(source.view) if settings.profile == GENERIC.name else None
        return profile_named(detected or settings.profile)

    def plugin() -> PluginState:
        for found in plugins(source.view):
            return PluginState(name=found.name, enforces=found.enforcement is Enforcement.ON, why_not=found.reason)
        return PluginState()

    return EnforcingSources(
        snapshot=lambda: source.snapshot,
        standing=source.view.standing,
        age_seconds=lambda: source.age_seconds,
        skews_ms=lambda: {agent.agent_id: agent.clock_skew_ms for agent in store.agents(source.cluster)},
        profile=profile,
        plugin=plugin,
    )


def _telling(settings: Settings, events: EventLog, cluster: str) -> Telling:
    webhook = Outlet(settings.webhook_url, secret_file=settings.webhook_secret_file) if settings.webhook_url else None
    alertmanager = (
        Outlet(f"{settings.alertmanager_url.rstrip('/')}/api/v2/alerts", token_file=settings.alertmanager_token_file)
        if settings.alertmanager_url
        else None
    )
    return Telling(events, cluster, webhook=webhook, alertmanager=alertmanager)


def _review(  # noqa: PLR0917 - each is another part of the answer, and this is where they meet
    settings: Settings,
    store: Store,
    source: ClusterSource,
    decisions: DecisionLog,
    drifting: Drifting,
    connect: Connect | None,
) -> Review:
    return Review(
        Sources(
            store=store,
            view=source,
            decisions=decisions,
            sign_offs=SignOffs(store.engine),
            overview=Overview(store.engine),
            events=EventLog(store.engine),
            watches=PolicyWatches(store.engine),
            clock=lambda: datetime.now(tz=UTC),
            profile=settings.profile,
            masking_key=masking_key(store.engine),
            days_seen=lambda workload: days_seen(store.engine, workload),
            dry_run=ServerSideDryRun(connect()) if settings.dry_run and connect is not None else None,
            drifting=drifting,
        )
    )
