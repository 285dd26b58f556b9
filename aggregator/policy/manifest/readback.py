"""Rendered YAML read back into policies, as the API server would read it.

Enters: text that `render` wrote. Leaves: NetworkPolicy values. What is proved is proved of these, never of the objects
that were rendered.
"""

import yaml

from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.policy.manifest.parse import parse_policy

_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_back(text: str) -> tuple[NetworkPolicy, ...]:
    """Every policy of a multi-document text. Raises InputError for one that cannot be a NetworkPolicy."""
    documents = yaml.load_all(text, Loader=_LOADER)  # the C one where libyaml is; both are safe
    return tuple(parse_policy(document) for document in documents if document is not None)
