"""Watching: people put a proposal, or policies of their own, on watch, see what runs, and stop it.

Enters: a Caller, YAML or a scope, for how long. Leaves: views. Invariant: who may decide in every namespace that the
policies are of may watch them, and who sees every one of these namespaces sees the watch.
"""

import json
import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from aggregator.errors import InputError, NotFoundError
from aggregator.services.authority.caller import Caller, Resource, Verb
from aggregator.services.keeping.shadowing import policies_in
from aggregator.services.question import Question, WorkloadRef
from aggregator.store.watches import PolicyWatch, PolicyWatches

audit = logging.getLogger("wattle.audit")
MOST_DAYS = 31
MOST_RUNNING = 20  # of one cluster: each costs the leader a reading of the links of its namespaces


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchView:
    """`id` is the subject of its events. `ended` is empty while it runs."""

    id: str
    name: str
    policies: list[str]
    author: str
    reason: str
    began_at: datetime
    ends_at: datetime
    ended: str
    yaml: str


class Watching:
    """Blocking and thread-safe."""

    def __init__(
        self,
        watches: PolicyWatches,
        cluster: str,
        ask: Callable[[Caller], Question],
        propose: Callable[[Caller, WorkloadRef | str], str],
        read: Callable[[str], Iterable[object]],
    ) -> None:
        self._watches = watches
        self._cluster = cluster
        self._ask = ask
        self._propose = propose
        self._read = read

    def begin(
        self,
        caller: Caller,
        *,
        yaml: str = "",
        scope: WorkloadRef | str = "",
        name: str = "",
        days: int,
        reason: str = "",
    ) -> WatchView:
        """The policies of `yaml`, or the proposal of a scope as it is now. Raises InputError."""
        if bool(yaml) == bool(scope):
            raise InputError("either YAML or a scope is put on watch", field="yaml")
        if not 1 <= days <= MOST_DAYS:
            raise InputError(f"a watch lasts 1 to {MOST_DAYS} days", field="days")
        question = self._ask(caller)
        text = yaml or self._propose(caller, scope)
        policies = policies_in(self._read(text))
        for namespace in sorted({policy.namespace for policy in policies}):
            caller.must(Verb.UPDATE, Resource.DECISIONS, namespace)
        if sum(watch.runs(question.now) for watch in self._watches.all(self._cluster)) >= MOST_RUNNING:
            raise InputError(f"{MOST_RUNNING} watches run already: stop one first", field="yaml")
        watch = PolicyWatch(
            watch_id=secrets.token_hex(8),
            name=name or (str(scope) if scope else ", ".join(map(str, policies))),
            yaml=text,
            author=caller.name,
            reason=reason,
            began_at=question.now,
            ends_at=question.now + timedelta(days=days),
        )
        self._watches.begin(self._cluster, watch)
        _log("watch begun", caller, watch, reason)
        return self._view(watch, question.now)

    def watches(self, caller: Caller) -> list[WatchView]:
        """The newest first, those that ended, too."""
        question = self._ask(caller)
        return [self._view(watch, question.now) for watch in self._seen(question)]

    def stop(self, caller: Caller, watch_id: str) -> WatchView:
        question = self._ask(caller)
        watch = next((w for w in self._seen(question) if w.watch_id == watch_id), None)
        if watch is None:
            raise NotFoundError("there is no such watch")
        for namespace in self._namespaces(watch):
            caller.must(Verb.UPDATE, Resource.DECISIONS, namespace)
        if self._watches.stop(self._cluster, watch_id, at=question.now):
            _log("watch stopped", caller, watch, "")
        return next(self._view(w, question.now) for w in self._seen(question) if w.watch_id == watch_id)

    def _seen(self, question: Question) -> list[PolicyWatch]:
        everything = self._watches.all(self._cluster)
        return [w for w in everything if all(map(question.sight.namespace, self._namespaces(w)))]

    def _namespaces(self, watch: PolicyWatch) -> list[str]:
        return sorted({policy.namespace for policy in policies_in(self._read(watch.yaml))})

    def _view(self, watch: PolicyWatch, now: datetime) -> WatchView:
        ended = "stopped" if watch.stopped_at is not None else "" if watch.runs(now) else "over"
        return WatchView(
            id=watch.watch_id,
            name=watch.name,
            policies=[str(policy) for policy in policies_in(self._read(watch.yaml))],
            author=watch.author,
            reason=watch.reason,
            began_at=watch.began_at,
            ends_at=watch.ends_at,
            ended=ended,
            yaml=watch.yaml,
        )


def _log(what: str, caller: Caller, watch: PolicyWatch, reason: str) -> None:
    line = {"said": what, "author": caller.name, "watch": watch.watch_id, "name": watch.name, "reason": reason}
    audit.info("%s", json.dumps(line, ensure_ascii=True))
