"""What only the object as written shows, because parsing evens it out: host bits, unknown fields, a missing namespace.

Enters: a raw NetworkPolicy object. Leaves: Findings, among them all that the API server would refuse.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from aggregator.model.finding import Finding, Severity
from aggregator.policy.lint.codes import Code
from aggregator.policy.manifest.validate import Violation, validate


def check_object(obj: Mapping[str, Any]) -> Iterator[Finding]:
    """Findings on one NetworkPolicy object as it is written."""
    metadata = obj.get("metadata")
    fields = metadata if isinstance(metadata, Mapping) else {}
    name = f"{fields.get('namespace') or 'default'}/{fields.get('name') or ''}"
    if not fields.get("namespace"):
        yield Finding(
            code=Code.MISSING_NAMESPACE,
            severity=Severity.WARNING,
            subject=name,
            message="has no metadata.namespace: it goes where kubectl happens to point, else to default",
            way_out="write metadata.namespace",
        )
    for violation in validate(obj):
        code, way_out = _kind(violation)
        yield Finding(
            code=code,
            severity=violation.severity,
            subject=f"{name}:{violation.field}",
            message=violation.message,
            way_out=way_out,
        )


def _kind(violation: Violation) -> tuple[Code, str]:
    if violation.severity is Severity.ERROR:
        return Code.INVALID, "correct it: the API server refuses the object"
    if violation.message.startswith("unknown field"):
        return Code.UNKNOWN_FIELD, "correct the name, or remove the field"
    return Code.HOST_BITS, "write the network's own address"
