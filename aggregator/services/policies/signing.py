"""Signing: a proposal is submitted by one person and approved by another, and fixed by its digest until it changes.

Enters: a Caller, a scope. Leaves: a SignOffView. Invariant: nobody approves what they submitted, nor what they cannot
see whole, nor anything but the bytes that were submitted.
"""

import json
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Literal

from aggregator.errors import ConflictError, ForbiddenError, NotFoundError
from aggregator.services.authority.caller import Caller, Resource, Verb
from aggregator.services.deciding.said_views import SignOffView
from aggregator.services.policies.policy_views import ProposalView
from aggregator.services.question import WorkloadRef
from aggregator.store.sign_offs import SignOff, SignOffs

audit = logging.getLogger("wattle.audit")
Scope = WorkloadRef | str


class Signing:
    """Blocking and thread-safe. `propose` is Review's, over all that is recorded."""

    def __init__(
        self,
        sign_offs: SignOffs,
        cluster: str,
        propose: Callable[[Caller, Scope], ProposalView],
        clock: Callable[[], datetime],
    ) -> None:
        self._sign_offs = sign_offs
        self._cluster = cluster
        self._propose = propose
        self._clock = clock

    def state(self, caller: Caller, scope: Scope) -> SignOffView:
        caller.must(Verb.GET, Resource.POLICIES, _namespace(scope))
        return self._view(scope, self._whole(caller, scope, proved=False))

    def submit(self, caller: Caller, scope: Scope, *, reason: str) -> SignOffView:
        """Fixes the proposal as it is now; an earlier submission, approved or not, gives way."""
        caller.must(Verb.UPDATE, Resource.POLICIES, _namespace(scope))
        proposal = self._whole(caller, scope)
        if not proposal.policies:
            raise ConflictError("there is no policy to submit: see the findings")
        said = SignOff(
            scope=str(scope),
            digest=proposal.digest,
            submitted_by=caller.name,
            submitted_at=self._clock(),
            reason=reason,
        )
        self._sign_offs.submit(self._cluster, said)
        _log("submitted", caller, said.scope, said.digest, reason)
        return self._view(scope, proposal)

    def approve(self, caller: Caller, scope: Scope, digest: str, *, reason: str) -> SignOffView:
        caller.must(Verb.APPROVE, Resource.POLICIES, _namespace(scope))
        proposal = self._whole(caller, scope)
        submitted = self._sign_offs.of(self._cluster, str(scope))
        if submitted is None:
            raise NotFoundError("nothing has been submitted for this scope")
        if submitted.submitted_by == caller.name:
            raise ForbiddenError("who submitted a proposal does not approve it: ask another person")
        if not digest == submitted.digest == proposal.digest:
            raise ConflictError("the proposal has changed since it was submitted: submit it again")
        if not self._sign_offs.approve(self._cluster, str(scope), digest, by=caller.name, at=self._clock()):
            raise ConflictError("it is approved already, or another proposal has been submitted")
        _log("approved", caller, str(scope), digest, reason)
        return self._view(scope, proposal)

    def _whole(self, caller: Caller, scope: Scope, *, proved: bool = True) -> ProposalView:
        proposal = self._propose(caller, scope)
        if proposal.masked_links:
            raise ForbiddenError("the proposal has links with namespaces that you may not see: it is not whole for you")
        if proved and proposal.policies and not proposal.certificate.holds:
            raise ConflictError("the proposal's certificate does not hold: see what breaks it")
        return proposal

    def _view(self, scope: Scope, proposal: ProposalView) -> SignOffView:
        found = self._sign_offs.of(self._cluster, str(scope))
        if found is None:
            return SignOffView(scope=str(scope), state="none", current_digest=proposal.digest)
        state: Literal["submitted", "approved", "changed"] = "approved" if found.approved_by else "submitted"
        return SignOffView(
            scope=str(scope),
            state=state if found.digest == proposal.digest else "changed",
            current_digest=proposal.digest,
            digest=found.digest,
            submitted_by=found.submitted_by,
            submitted_at=found.submitted_at,
            reason=found.reason,
            approved_by=found.approved_by,
            approved_at=found.approved_at,
        )


def _namespace(scope: Scope) -> str:
    return scope.namespace if isinstance(scope, WorkloadRef) else scope


def _log(what: str, caller: Caller, scope: str, digest: str, reason: str) -> None:
    line = {"proposal": what, "author": caller.name, "scope": scope, "digest": digest, "reason": reason}
    audit.info("%s", json.dumps(line, ensure_ascii=True))
