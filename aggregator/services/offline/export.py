"""Policies of files, or proposals for them, in another form, with its proof.

Enters: an Offline and the form's name. Leaves: an Export.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.policy.export.admin import BASELINE_POLICY, CLUSTER_POLICY, export_admin
from aggregator.policy.export.calico import DEFAULT_ORDER, DEFAULT_TIER, Aliases, export_calico
from aggregator.policy.export.cilium import Names, export_cilium
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
    aliases: Aliases | None = None,
    names: Names | None = None,
) -> Export:
    """The policies in this form. Calico takes `aliases` as sets of networks, Cilium `names` of outside addresses."""
    writers: Mapping[Form, Callable[[], Export]] = {
        Form.CILIUM: lambda: export_cilium(policies, cluster, names=names),
        Form.CALICO: lambda: export_calico(policies, cluster, tier=tier, order=order, aliases=aliases),
        Form.CLUSTER: lambda: export_admin(policies, cluster, kind=CLUSTER_POLICY),
        Form.BASELINE: lambda: export_admin(policies, cluster, kind=BASELINE_POLICY),
        Form.KUSTOMIZE: lambda: export_kustomize(policies, cluster),
    }
    return writers[form]()
