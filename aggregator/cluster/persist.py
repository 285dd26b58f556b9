"""Persistence: the history into Episodes and back, so that a restarted aggregator still resolves yesterday.

Enters: a view and an EpisodeStore. Leaves: episodes written once changed, read once at start. Invariant: what was
still so when it was written ends at the latest at the first list after the restart, and no sooner than the last time
at which the view was right: in between it may have been so.
"""

import hashlib
import json
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from aggregator import metrics
from aggregator.cluster.history import History, PodPast, ServiceKey, ServiceState, Timeline
from aggregator.cluster.labels import LabelHistory
from aggregator.cluster.reduce import FOREVER, NEVER, address, labels_of, protocol_of
from aggregator.cluster.view import ClusterView
from aggregator.errors import StoreError
from aggregator.model.address import IPAddress
from aggregator.model.cluster import ServiceBackend, ServicePort
from aggregator.model.history import Episode, EpisodeStore
from aggregator.model.workload import Workload

SAVE_SECONDS = 10.0
LABEL_RETENTION_SECONDS = 90 * 24 * 3600.0  # a baseline of "all recorded" outlives the addresses
RETENTION_SECONDS = 7 * 24 * 3600.0
CONFIRMED = "view/confirmed"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Persistence:
    """Keeps one view's history in a store. Blocking; called from threads, one at a time."""

    def __init__(self, view: ClusterView, store: EpisodeStore, *, retention_seconds: float = RETENTION_SECONDS) -> None:
        self._view = view
        self._store = store
        self._retention_seconds = retention_seconds
        self._written: dict[str, int] = {}  # key -> hash of the Episode
        self._next_save = 0.0
        self._saving = threading.Lock()

    def due(self, now_seconds: float) -> bool:
        if now_seconds < self._next_save:
            return False
        self._next_save = now_seconds + SAVE_SECONDS
        return True

    def load(self) -> int:
        """Bring the past into a view that has seen nothing yet; how many episodes."""
        episodes = self._store.load_episodes(self._view.cluster, since=self._horizon())
        with self._view.lock:
            for episode in episodes:
                self._written[episode.key] = hash(episode)
                if episode.key == CONFIRMED:
                    self._view.resumed = True
                    self._view.confirmed = max(self._view.confirmed, json.loads(episode.body)["confirmed"])
                elif episode.kind == "labels":
                    restore_labels(self._view.labels, episode)
                else:
                    restore(self._view.history, episode)
        return len(episodes)

    def _horizon(self) -> datetime:
        return datetime.fromtimestamp(time.time() - self._retention_seconds, UTC)

    def save(self) -> int:
        """Write what changed; how many episodes. A store that refuses is tried again the next time.

        One at a time: the last save before the end waits for one that is under way in a thread.
        """
        with self._saving:
            return self._save()

    def _save(self) -> int:
        view = self._view
        with view.lock:
            pods, view.history.changed_pods = view.history.changed_pods, set()
            forgotten = view.history.forget(time.time() - self._retention_seconds)
            view.labels.forget(time.time() - LABEL_RETENTION_SECONDS)
            current = [*episodes_of(view.history, view.cluster, pods), *label_episodes(view.labels, view.cluster)]
            if 0 < view.confirmed < FOREVER:
                current.append(_confirmed(view.cluster, view.confirmed))
        changed = [e for e in current if self._written.get(e.key) != hash(e)]
        try:
            if changed:
                self._store.save_episodes(changed)
                self._store.forget_episodes(ended_before=self._horizon())
        except StoreError:
            metrics.CLUSTER_EPISODES_FAILED.labels(view.cluster).inc()
            with view.lock:
                view.history.changed_pods |= pods
            return 0
        self._written |= {e.key: hash(e) for e in changed}
        if forgotten:  # what is no longer there is not compared with again
            self._written = {k: h for k, h in self._written.items() if not _is_gone(view.history, k)}
        return len(changed)


def _is_gone(history: History, key: str) -> bool:
    kind, _, name = key.partition("/")
    return kind == "pod" and name not in history.pods


def _confirmed(cluster: str, confirmed: float) -> Episode:
    """Until when everything had been seen: what the next start may rely on."""
    return Episode(cluster=cluster, kind="view", key=CONFIRMED, began=_EPOCH, body=json.dumps({"confirmed": confirmed}))


# ---- to episodes ----------------------------------------------------------------------------------------------------


def episodes_of(history: History, cluster: str, pods: Iterable[str]) -> Iterator[Episode]:
    """Nodes, Services, and those of the pods."""
    for key in pods:
        past = history.pods.get(key)
        if past is not None:
            yield _pod_episode(history, cluster, key, past)
    for ip, nodes in history.node_ips.items():
        for node in nodes.spans:
            one = [(str(ip), node.since, node.until)]
            yield _episode(
                cluster, f"node/{node.key}/{ip}/{max(0.0, node.since):.0f}", one, node.until, {"name": node.key}
            )
    vips: dict[ServiceKey, list[tuple[str, float, float]]] = {}
    for ip, services in history.service_ips.items():
        for service in services.spans:
            vips.setdefault(service.key, []).append((str(ip), service.since, service.until))
    for key_of_service, states in history.services.items():
        for state in states.spans:
            yield _episode(
                cluster,
                f"service/{key_of_service}/{key_of_service.uid}/{state.key.version}",
                sorted(vips.get(key_of_service, ())),
                state.until,
                _service_body(key_of_service, state.key),
                began=state.since,
            )


def _pod_episode(history: History, cluster: str, key: str, past: PodPast) -> Episode:
    spans = [
        (str(ip), span.since, span.until)
        for ip in past.ips
        for span in (history.pod_ips[ip].spans if ip in history.pod_ips else ())
        if span.key == key
    ]
    return _episode(cluster, f"pod/{key}", sorted(spans), history.pod_ends.get(key, FOREVER), _pod_body(past))


def _episode(
    cluster: str,
    key: str,
    spans: list[tuple[str, float, float]],
    until: float,
    body: dict[str, Any],
    *,
    began: float | None = None,
) -> Episode:
    since = began if began is not None else min((s for _, s, _ in spans), default=NEVER)
    body["addresses"] = [[ip, _plain(s), _plain(u)] for ip, s, u in spans]
    return Episode(
        cluster=cluster,
        kind=key.partition("/")[0],
        key=key,
        began=_EPOCH if since <= 0 else datetime.fromtimestamp(since, UTC),
        ended=None if until == FOREVER else datetime.fromtimestamp(max(0.0, until), UTC),
        body=json.dumps(
            {**body, "since": _plain(since), "until": _plain(until)}, separators=(",", ":"), sort_keys=True
        ),
    )


def _plain(moment: float) -> float | None:
    return None if moment in {NEVER, FOREVER} else moment


def label_episodes(labels: LabelHistory, cluster: str) -> Iterator[Episode]:
    """Never ended, so that the retention of addresses does not end them: `forget` of the history of labels does."""
    for workload, worn, when in labels.past():
        owner = [workload.namespace, workload.kind, workload.name]
        which = json.dumps([owner, worn], separators=(",", ":"))
        body = {"workload": owner, "labels": worn, "first": _hour(when.first), "last": _hour(when.last)}
        yield Episode(
            cluster=cluster,
            kind="labels",
            key=f"labels/{hashlib.blake2b(which.encode(), digest_size=16).hexdigest()}",
            began=datetime.fromtimestamp(_hour(when.first), UTC),
            body=json.dumps(body, separators=(",", ":"), sort_keys=True),
        )


def _hour(moment: float) -> float:
    """Written at most once an hour, however often a pod is seen."""
    return max(0.0, moment // 3600 * 3600)


def _pod_body(past: PodPast) -> dict[str, Any]:
    owner = None if past.workload is None else [past.workload.namespace, past.workload.kind, past.workload.name]
    return {
        "uid": past.uid,
        "static_uid": past.static_uid,
        "namespace": past.namespace,
        "name": past.name,
        "node": past.node_name,
        "host_network": past.host_network,
        "workload": owner,
    }


def _service_body(key: ServiceKey, state: ServiceState) -> dict[str, Any]:
    return {
        "service": list(key),
        "version": state.version,
        "ports": [[p.name, p.port, p.protocol.value, p.target_port, p.node_port] for p in state.ports],
        "backends": [[str(b.ip), b.port, b.protocol.value, b.port_name, b.pod] for b in state.backends],
    }


# ---- and back -------------------------------------------------------------------------------------------------------


def restore(history: History, episode: Episode) -> None:
    """One episode into the history. A kind that a later release wrote is left alone."""
    body = json.loads(episode.body)
    match episode.kind:
        case "pod":
            _restore_pod(history, episode.cluster, body)
        case "node":
            for ip, since, until in _spans(body):
                history.node_ips.setdefault(ip, Timeline()).add(body["name"], since, until)
        case "service":
            _restore_service(history, body)


def restore_labels(labels: LabelHistory, episode: Episode) -> None:
    body = json.loads(episode.body)
    namespace, kind, name = body["workload"]
    workload = Workload(cluster=episode.cluster, namespace=namespace, kind=kind, name=name)
    worn = labels_of(dict(body["labels"]))
    labels.see(workload, worn, body["first"])
    labels.see(workload, worn, body["last"])


def _restore_pod(history: History, cluster: str, body: dict[str, Any]) -> None:
    owner = body["workload"]
    workload = None if owner is None else Workload(cluster=cluster, namespace=owner[0], kind=owner[1], name=owner[2])
    past = PodPast(
        body["uid"],
        body["static_uid"],
        body["namespace"],
        body["name"],
        body["node"],
        body["host_network"],
        workload,
        tuple(ip for ip, _, _ in _spans(body)),
    )
    history.pods[past.uid] = past
    if past.static_uid:
        history.static_pods[(past.node_name, past.static_uid)] = past.uid
    if body["until"] is not None:
        history.pod_ends[past.uid] = body["until"]
    for ip, since, until in _spans(body):
        history.pod_ips.setdefault(ip, Timeline()).add(past.uid, since, until)


def _restore_service(history: History, body: dict[str, Any]) -> None:
    key = ServiceKey(*body["service"])
    for ip, since, until in _spans(body):
        history.service_ips.setdefault(ip, Timeline()).add(key, since, until)
    ports = tuple(
        ServicePort(name=name, port=port, protocol=protocol, target_port=target, node_port=node_port)
        for name, port, protocol_text, target, node_port in body["ports"]
        if (protocol := protocol_of(protocol_text)) is not None
    )
    backends = tuple(
        ServiceBackend(ip=backend_ip, port=port, protocol=protocol, port_name=port_name, pod=pod)
        for ip_text, port, protocol_text, port_name, pod in body["backends"]
        if (protocol := protocol_of(protocol_text)) is not None and (backend_ip := address(ip_text)) is not None
    )
    state = ServiceState(body["version"], ports, backends)
    since = NEVER if body["since"] is None else body["since"]
    until = FOREVER if body["until"] is None else body["until"]
    history.services.setdefault(key, Timeline()).add(state, since, until)
    history.see_node_ports(key, ports)


def _spans(body: dict[str, Any]) -> Iterable[tuple[IPAddress, float, float]]:
    for text, since, until in body["addresses"]:
        ip = address(text)
        if ip is not None:
            yield ip, NEVER if since is None else since, FOREVER if until is None else until
