"""NetworkPolicies as a kustomize folder: one file each, named by what it holds.

Enters: NetworkPolicies. Leaves: an Export whose proof is made from the files that kustomization.yaml lists, read back.
Invariant: equal policies give equal files.
"""

from collections.abc import Iterable

from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.policy.export.proof import Export, ExportedFile, compare, judge_by_evaluation
from aggregator.policy.export.text import read, write
from aggregator.policy.readback import read_back
from aggregator.policy.render import render_one

KUSTOMIZATION = "kustomization.yaml"


def export_kustomize(policies: Iterable[NetworkPolicy], cluster: ClusterSnapshot) -> Export:
    """The folder. The proof needs a policy of each name to be there once."""
    given = sorted(policies, key=lambda policy: (policy.namespace, policy.name))
    files = {f"networkpolicy-{policy.namespace}-{policy.name}.yaml": render_one(policy) for policy in given}
    index = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(files),
    }
    files[KUSTOMIZATION] = write([index])
    (listed,) = read(files[KUSTOMIZATION])
    back = [policy for path in listed["resources"] for policy in read_back(files[path])]
    checked, differences = compare(given, cluster, judge_by_evaluation(back, cluster))
    refused = () if len(back) == len(given) else ("two policies share a namespace and name",)
    return Export(
        kind="kustomize",
        files=tuple(ExportedFile(path=path, text=text) for path, text in sorted(files.items())),
        checked=checked,
        differences=differences,
        refused=refused,
    )
