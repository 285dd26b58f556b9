"""Verifying: pods with the labels of workloads try each other, and what happens is compared with the evaluator.

Enters: an API server, namespaces, a limit. Leaves: a Report. Invariant: without a namespace and a limit nothing is
started; nothing but the pods that were started is ever called; whatever ends this, the Job takes every trace with it.
"""

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from aggregator.cluster.transport import ApiError
from aggregator.cluster.view import ClusterView
from aggregator.errors import ForbiddenError, InputError
from aggregator.model.cluster import ClusterSnapshot, Pod
from aggregator.model.verdict import Verdict
from aggregator.policy.profiles.profile import Profile
from aggregator.policy.trial import Pair, choose
from aggregator.services.verifying import objects

NETWORKING = "networking.k8s.io/v1"
MOST_PAIRS = 200
STARTS_WITHIN_SECONDS = 60.0
ANSWER_SECONDS = 3.0


class Api(Protocol):
    def get(self, path: str) -> dict[str, Any]: ...

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]: ...

    def delete(self, path: str) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """`image` needs python3 alone: the aggregator's own will do."""

    namespaces: Sequence[str]
    limit: int
    image: str
    profile: Profile
    lifetime_seconds: int = 300
    settle_seconds: float = 5.0
    patience_seconds: float = 15.0
    poll_seconds: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """`outcome`: open, refused, no-answer, or "" when it was not tried; at several addresses, what is not expected."""

    pair: Pair
    outcome: str
    address: str = ""  # where something else happened than at the server's others

    @property
    def agrees(self) -> bool | None:
        if not self.outcome:
            return None
        return (self.outcome == "open") == (self.pair.expected is Verdict.ALLOWED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    tried: tuple[Tried, ...]
    unknown: int
    left_out: int
    notes: tuple[str, ...]


def verify(api: Api, asked: Asked, *, say: Callable[[str], None] = lambda _text: None) -> Report:
    """Raises InputError, ForbiddenError, ApiError; the pods go in any case."""
    if not asked.namespaces:
        raise InputError("name the namespaces to verify in: --namespace", field="namespace")
    if not 1 <= asked.limit <= MOST_PAIRS:
        raise InputError(f"say how many pairs may be tried, 1 to {MOST_PAIRS}: --limit", field="limit")
    snapshot, notes = _snapshot(api, asked.namespaces)
    trial = choose(
        snapshot,
        asked.namespaces,
        limit=asked.limit,
        profile=asked.profile,
        refused=_published(api, asked.namespaces, snapshot),
    )
    if not trial.pairs:
        raise InputError(f"no two workloads of {', '.join(asked.namespaces)} can be told apart to be tried")
    run = f"{objects.PREFIX}-{secrets.token_hex(3)}"
    with _owners(api, asked, run) as owners:
        started = _Run(api=api, asked=asked, name=run, owners=owners)
        servers = started.servers(trial.pairs)
        say(f"{len(servers)} servers are up; the clients try {len(trial.pairs)} pairs")
        tried = started.clients(trial.pairs, servers)
    return Report(tried=tuple(tried), unknown=trial.unknown, left_out=trial.left_out, notes=tuple(notes))


# ---- what there is --------------------------------------------------------------------------------------------------


def _snapshot(api: Api, namespaces: Sequence[str]) -> tuple[ClusterSnapshot, list[str]]:
    view = ClusterView("here")
    notes = ["admin and plug-in policies were not looked at: where there are any, expect differences"]
    now = time.time()
    for namespace in namespaces:
        try:
            view.apply("Namespace", api.get(f"/api/v1/namespaces/{namespace}"), at=now)
        except ApiError as error:
            if error.status == 404:
                raise InputError(f"there is no namespace {namespace}", field="namespace") from error
            view.apply("Namespace", {"metadata": {"name": namespace}}, at=now)
            notes.append(f"the labels of the namespace {namespace} could not be read: it is known by its name alone")
        for kind, version, path in (
            ("Pod", "v1", f"/api/v1/namespaces/{namespace}/pods"),
            ("NetworkPolicy", NETWORKING, f"/apis/{NETWORKING}/namespaces/{namespace}/networkpolicies"),
        ):
            for item in _allowed(namespace, partial(api.get, path))["items"]:
                view.apply(kind, {"apiVersion": version, "kind": kind, **item}, at=now)
    return view.snapshot(), notes


def _published(api: Api, namespaces: Sequence[str], snapshot: ClusterSnapshot) -> frozenset[Pod]:
    """Pods that a Service publishes before they are ready: one more with their labels would be published, too."""
    found: set[Pod] = set()
    for namespace in namespaces:
        services = _allowed(namespace, partial(api.get, f"/api/v1/namespaces/{namespace}/services"))
        for service in services["items"]:
            spec = service.get("spec") or {}
            selector = set((spec.get("selector") or {}).items())
            if spec.get("publishNotReadyAddresses") and selector:
                found |= {p for p in snapshot.pods if p.namespace == namespace and selector <= set(p.labels)}
    return frozenset(found)


ROLE = "the Role of deploy/rbac/verify.yaml"


def _allowed(namespace: str, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return ask()
    except ApiError as error:
        if error.status in {401, 403}:
            raise ForbiddenError(
                f"you may not verify in the namespace {namespace}: it takes {ROLE} ({error})"
            ) from error
        raise


# ---- what is started ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _owners(api: Api, asked: Asked, run: str) -> Iterator[dict[str, dict[str, Any]]]:
    """By namespace the ConfigMap that owns its pods. Leaving deletes the Jobs; killed, Kubernetes does it."""
    made: list[str] = []
    try:
        owners = {}
        for namespace in asked.namespaces:
            jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
            owner = _allowed(namespace, partial(api.post, jobs, objects.job(run, asked.lifetime_seconds)))
            made.append(f"{jobs}/{run}")
            maps = f"/api/v1/namespaces/{namespace}/configmaps"
            owners[namespace] = _allowed(namespace, partial(api.post, maps, objects.config_map(run, owner)))
        yield owners
    finally:
        for path in made:
            with contextlib.suppress(ApiError):
                api.delete(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    api: Api
    asked: Asked
    name: str
    owners: Mapping[str, dict[str, Any]]

    def servers(self, pairs: Sequence[Pair]) -> dict[Pod, tuple[str, ...]]:
        """The addresses of a server for each destination: a plug-in may enforce one family and not the other."""
        ports: dict[Pod, set[int]] = {}
        for pair in pairs:
            ports.setdefault(pair.dst, set()).add(pair.port)
        probes = {like: self._probe(f"s{number}", like) for number, like in enumerate(ports)}
        for like, probe in probes.items():
            self._start(like, objects.server(probe, sorted(ports[like])))
        running = {
            like: self._wait(probe, lambda s: s.get("podIP") and s.get("phase") == "Running", "start")
            for like, probe in probes.items()
        }
        return {like: _addresses(status) for like, status in running.items()}

    def clients(self, pairs: Sequence[Pair], servers: Mapping[Pod, tuple[str, ...]]) -> list[Tried]:
        by_source: dict[Pod, list[Pair]] = {}
        for pair in pairs:
            by_source.setdefault(pair.src, []).append(pair)
        probes = {like: self._probe(f"c{number}", like) for number, like in enumerate(by_source)}
        for like, probe in probes.items():
            targets = [
                objects.Target(addresses=servers[pair.dst], port=pair.port, open=pair.expected is Verdict.ALLOWED)
                for pair in by_source[like]
            ]
            body = objects.client(
                probe,
                targets,
                settle_seconds=self.asked.settle_seconds,
                patience_seconds=self.asked.patience_seconds,
            )
            self._start(like, body)
        tried: list[Tried] = []
        for like, own in by_source.items():
            rounds = 2 * ANSWER_SECONDS * sum(len(servers[pair.dst]) for pair in own)  # the last begins at the end
            longest = STARTS_WITHIN_SECONDS + self.asked.settle_seconds + self.asked.patience_seconds + rounds
            status = self._wait(
                probes[like], lambda s: s.get("phase") in {"Succeeded", "Failed"}, "finish", within_seconds=longest
            )
            said = [*_said(status), *[""] * len(own)]
            tried += [compared(pair, servers[pair.dst], letters) for pair, letters in zip(own, said, strict=False)]
        return tried

    def _probe(self, suffix: str, like: Pod) -> objects.Probe:
        return objects.Probe(
            name=f"{self.name}-{suffix}",
            like=like,
            owner=self.owners[like.namespace],
            image=self.asked.image,
            seconds=self.asked.lifetime_seconds,
        )

    def _start(self, like: Pod, body: Mapping[str, Any]) -> None:
        _allowed(like.namespace, partial(self.api.post, f"/api/v1/namespaces/{like.namespace}/pods", body))

    def _wait(
        self,
        probe: objects.Probe,
        done: Callable[[dict[str, Any]], object],
        what: str,
        *,
        within_seconds: float = STARTS_WITHIN_SECONDS,
    ) -> dict[str, Any]:
        deadline = time.monotonic() + min(within_seconds, float(self.asked.lifetime_seconds))
        while True:
            found = self.api.get(f"/api/v1/namespaces/{probe.like.namespace}/pods/{probe.name}")
            status: dict[str, Any] = found.get("status") or {}
            if done(status):
                return status
            if time.monotonic() > deadline:
                phase = status.get("phase", "unknown")
                raise InputError(f"the pod {probe.name} did not {what} in time (it is {phase}): see kubectl describe")
            time.sleep(self.asked.poll_seconds)


def _addresses(status: Mapping[str, Any]) -> tuple[str, ...]:
    found = [each.get("ip") for each in status.get("podIPs") or ()]
    return tuple(str(ip) for ip in dict.fromkeys((status["podIP"], *found)))


def compared(pair: Pair, addresses: Sequence[str], letters: str) -> Tried:
    """What happened at each address as one; `letters` of objects.WORDS, none where nothing was tried."""
    tried = [
        Tried(pair=pair, outcome=objects.WORDS.get(letter, ""), address=address)
        for letter, address in zip(letters, addresses, strict=False)
    ]
    differing = [one for one in tried if one.agrees is False]
    if differing and len(differing) < len(addresses):
        return differing[0]
    return Tried(pair=pair, outcome=tried[0].outcome if tried else "")


def _said(status: Mapping[str, Any]) -> list[str]:
    """What a client left in its termination message; nothing where it could not."""
    for container in status.get("containerStatuses") or ():
        message = ((container.get("state") or {}).get("terminated") or {}).get("message") or ""
        try:
            found = json.loads(message)
        except ValueError:
            continue
        if isinstance(found, list):
            return [str(one) for one in found]
    return []
