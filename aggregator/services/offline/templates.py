"""Pods that stand in for those of workloads that run nowhere yet: what Helm or kustomize would install.

Enters: a snapshot of manifests and the raw objects. Leaves: the snapshot with one pod for each pod template, by the
workload's name and without an address. Invariant: where manifests show any pod at all, they are taken at their word.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from aggregator.cluster.reduce import container_ports
from aggregator.model.cluster import ClusterSnapshot, Pod, WorkloadRecord

Raw = Mapping[str, Any]


def with_stand_ins(cluster: ClusterSnapshot, objects: Iterable[Raw]) -> ClusterSnapshot:
    """The snapshot as it is, or with one pod for each workload that is not scaled to zero."""
    if cluster.pods:
        return cluster
    templates = {_key(obj): _template_spec(obj) for obj in objects}
    records = [record for record in cluster.workloads if record.replicas != 0]
    return replace(cluster, pods=tuple(_stand_ins(records, templates)))


def _stand_ins(records: Iterable[WorkloadRecord], templates: Mapping[tuple[str, str, str], Raw]) -> Iterator[Pod]:
    taken = set()
    for record in sorted(records, key=lambda r: (r.workload.kind == "CronJob", r.workload)):
        workload = record.workload
        name = workload.name
        if (workload.namespace, name) in taken:
            name = f"{name}-{workload.kind.lower()}"
        taken.add((workload.namespace, name))
        yield Pod(
            namespace=workload.namespace,
            name=name,
            workload=workload,
            uid=str(workload),
            labels=record.template_labels,
            ports=container_ports(templates.get((workload.kind, workload.namespace, workload.name), {})),
            host_network=record.host_network,
        )


def _key(obj: Raw) -> tuple[str, str, str]:
    metadata = _mapping(obj.get("metadata"))
    return str(obj.get("kind")), str(metadata.get("namespace") or "default"), str(metadata.get("name"))


def _template_spec(obj: Raw) -> Raw:
    spec = _mapping(obj.get("spec"))
    job = _mapping(_mapping(spec.get("jobTemplate")).get("spec"))
    return _mapping(_mapping((job or spec).get("template")).get("spec"))


def _mapping(value: object) -> Raw:
    return value if isinstance(value, Mapping) else {}
