"""NetworkPolicies as a kustomize folder: one file each, named by what it holds.

Enters: NetworkPolicies. Leaves: an Export. Its proof: the files that kustomization.yaml lists, read back, are the
same values, so every verdict is the same. Invariant: equal policies give equal files.
"""

from collections.abc import Iterable

from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.policy.export.proof import Export, ExportedFile
from aggregator.policy.export.text import read, write
from aggregator.policy.manifest.readback import read_back
from aggregator.policy.manifest.render import render_one

KUSTOMIZATION = "kustomization.yaml"


def export_kustomize(policies: Iterable[NetworkPolicy], cluster: ClusterSnapshot) -> Export:  # noqa: ARG001 - as every export
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
    differences = tuple(
        f"{policy} is not read back as it was" for policy, again in zip(given, back, strict=False) if policy != again
    )
    once = len(back) == len(given)
    return Export(
        kind="kustomize",
        files=tuple(ExportedFile(path=path, text=text) for path, text in sorted(files.items())),
        checked=len(back),
        unit="policies, each read back as the same value",
        differences=differences,
        refused=() if once else ("two policies share a namespace and name",),
    )
