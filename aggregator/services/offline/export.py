"""Policies of files, or proposals for them, in another form, with its proof.

Enters: an Offline and the form's name. Leaves: an Export.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.policy.export.admin import BASELINE_POLICY, CLUSTER_POLICY, export_admin
from aggregator.policy.export.calico import DEFAULT_ORDER, DEFAULT_TIER, export_calico
from aggregator.policy.export.cilium import export_cilium
from aggregator.policy.export.kustomize import export_kustomize
from aggregator.policy.export.proof import Export


class Form(StrEnum):
    CILIUM = "cilium"
    CALICO = "calico"
    CLUSTER = "cluster"
    BASELINE = "baseline"
    KUSTOMIZE = "kustomize"


def export(
    policies: Sequence[NetworkPolicy],
    cluster: ClusterSnapshot,
    form: Form,
    *,
    tier: str = DEFAULT_TIER,
    order: int = DEFAULT_ORDER,
) -> Export:
    """The policies in this form."""
    writers: Mapping[Form, Callable[[], Export]] = {
        Form.CILIUM: lambda: export_cilium(policies, cluster),
        Form.CALICO: lambda: export_calico(policies, cluster, tier=tier, order=order),
        Form.CLUSTER: lambda: export_admin(policies, cluster, kind=CLUSTER_POLICY),
        Form.BASELINE: lambda: export_admin(policies, cluster, kind=BASELINE_POLICY),
        Form.KUSTOMIZE: lambda: export_kustomize(policies, cluster),
    }
    return writers[form]()
