"""A plug-in's own policies among manifests: known to be there, their meaning not computed.

Enters: a raw object. Leaves: a ForeignPolicy with whom it may select, or None for any other object.
"""

from collections.abc import Mapping
from typing import Any

from aggregator.cluster.foreign import ADMIN_KINDS, EXTRA_KINDS, kind_of, parse_extra
from aggregator.errors import InputError
from aggregator.model.adminpolicy import AdminPolicy, ForeignPolicy


def foreign_policy(obj: Mapping[str, Any]) -> AdminPolicy | ForeignPolicy | None:
    """The plug-in's policy that this object is. Raises InputError for one that makes no sense."""
    kind = kind_of(obj)
    if kind not in EXTRA_KINDS - ADMIN_KINDS:
        return None
    try:
        return parse_extra(kind, obj)
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise InputError(f"is no {kind} that can be read: {type(exc).__name__} {exc}") from exc
