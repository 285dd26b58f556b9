"""Plays Kubernetes' controllers: from Deployments, CronJobs and the like to ReplicaSets, Jobs and Pods.

Enters: a Scenario. Leaves: manifests as an API server would hold them (UIDs, owners, labels, hashes) and a PodPlan for
each pod that has to run. Pure but for the generator of names it is given.
"""

import hashlib
import json
import random
import uuid
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from lab.addresses import NodePlan
from lab.errors import ScenarioError
from lab.scenario import CLUSTER_SCOPED, Manifest, Scenario, key_of, pod_template
from lab.settings import Run

# Kubernetes spells random suffixes and template hashes without vowels and look-alikes.
SAFE_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPlan:
    """A pod that has to run: which workload it belongs to, its manifest before it was scheduled, its programs."""

    workload: str
    manifest: Manifest
    run: Run
    node: str | None = None


@dataclass(slots=True)
class Names:
    """UIDs and random suffixes."""

    rng: random.Random = field(default_factory=random.SystemRandom)

    def uid(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def suffix(self) -> str:
        return "".join(self.rng.choice(SAFE_LETTERS) for _ in range(5))

    def container_id(self) -> str:
        return f"{self.rng.getrandbits(256):064x}"


def timestamp(moment: datetime | None = None) -> str:
    return (moment or datetime.now(tz=UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


def template_hash(template: Manifest) -> str:
    number = int.from_bytes(hashlib.sha256(json.dumps(template, sort_keys=True).encode()).digest()[:6], "big")
    return "".join(SAFE_LETTERS[(number >> (4 * i)) % len(SAFE_LETTERS)] for i in range(10))


def admit(manifest: Manifest, names: Names) -> Manifest:
    """What an API server adds to whatever it stores. A UID that is there was given by another one."""
    stored = deepcopy(manifest)
    meta = stored["metadata"]
    meta.setdefault("uid", names.uid())
    meta["creationTimestamp"] = timestamp()
    if stored["kind"] == "Namespace":
        meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = meta["name"]
        stored.setdefault("spec", {"finalizers": ["kubernetes"]})
        stored["status"] = {"phase": "Active"}
    return stored


def owner_reference(owner: Manifest) -> dict[str, Any]:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owned_pod(owner: Manifest, template: Manifest, name: str, labels: Mapping[str, str], names: Names) -> Manifest:
    meta = {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": {**template.get("metadata", {}).get("labels", {}), **labels},
        "ownerReferences": [owner_reference(owner)],
    }
    if annotations := template.get("metadata", {}).get("annotations"):
        meta["annotations"] = annotations
    return admit({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}, names)


def expand(
    workload: Manifest, scenario: Scenario, nodes: tuple[NodePlan, ...], names: Names
) -> tuple[list[Manifest], list[PodPlan]]:
    """The objects and the pods that follow from one stored workload. A CronJob has none until it is due."""
    key = key_of(workload)
    run = scenario.lab.run[key]
    template = pod_template(workload)
    name = workload["metadata"]["name"]
    replicas = workload["spec"].get("replicas", 1)

    made = [workload]
    on_nodes: list[str | None] = []
    pods: list[Manifest] = []
    match workload["kind"]:
        case "Deployment":
            replica_set = _replica_set(workload, template, names)
            made.append(replica_set)
            pod_hash = {"pod-template-hash": replica_set["metadata"]["labels"]["pod-template-hash"]}
            prefix = replica_set["metadata"]["name"]
            pods = [
                owned_pod(replica_set, template, f"{prefix}-{names.suffix()}", pod_hash, names) for _ in range(replicas)
            ]
        case "ReplicaSet":
            pods = [owned_pod(workload, template, f"{name}-{names.suffix()}", {}, names) for _ in range(replicas)]
        case "StatefulSet":
            pods = [_ordinal_pod(workload, template, index, names) for index in range(replicas)]
        case "DaemonSet":
            revision = {"controller-revision-hash": template_hash(template), "pod-template-generation": "1"}
            on_nodes = [node.name for node in nodes]
            pods = [owned_pod(workload, template, f"{name}-{names.suffix()}", revision, names) for _ in nodes]
        case "Job":
            pods = [_job_pod(workload, template, names)]
        case "Pod":
            made = []
            pods = [_bare_pod(workload, names)]
    plans = [
        PodPlan(workload=key, manifest=pod, run=run, node=node)
        for pod, node in zip(pods, on_nodes or [None] * len(pods), strict=True)
    ]
    return made, plans


def start_job(cron_job: Manifest, scenario: Scenario, scheduled_seconds: int, names: Names) -> tuple[Manifest, PodPlan]:
    """One run of a CronJob. The name counts seconds where Kubernetes counts minutes: the lab runs it more often."""
    name = f"{cron_job['metadata']['name']}-{scheduled_seconds}"
    job_template = deepcopy(cron_job["spec"]["jobTemplate"])
    job = admit(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": name,
                "namespace": cron_job["metadata"]["namespace"],
                "labels": job_template.get("metadata", {}).get("labels", {}),
                "ownerReferences": [owner_reference(cron_job)],
            },
            "spec": {"parallelism": 1, "completions": 1, **job_template["spec"]},
            "status": {"active": 1, "startTime": timestamp()},
        },
        names,
    )
    key = key_of(cron_job)
    pod = _job_pod(job, job["spec"]["template"], names)
    return job, PodPlan(workload=key, manifest=pod, run=scenario.lab.run[key])


def _replica_set(workload: Manifest, template: Manifest, names: Names) -> Manifest:
    pod_hash = template_hash(template)
    labels = {**template.get("metadata", {}).get("labels", {}), "pod-template-hash": pod_hash}
    selector = {**workload["spec"]["selector"]["matchLabels"], "pod-template-hash": pod_hash}
    meta = {
        "name": f"{workload['metadata']['name']}-{pod_hash}",
        "namespace": workload["metadata"]["namespace"],
        "labels": labels,
        "annotations": {"deployment.kubernetes.io/revision": "1"},
        "ownerReferences": [owner_reference(workload)],
    }
    spec = {
        "replicas": workload["spec"].get("replicas", 1),
        "selector": {"matchLabels": selector},
        "template": {**template, "metadata": {**template.get("metadata", {}), "labels": labels}},
    }
    return admit({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta, "spec": spec}, names)


def _ordinal_pod(workload: Manifest, template: Manifest, index: int, names: Names) -> Manifest:
    name = f"{workload['metadata']['name']}-{index}"
    labels = {
        "apps.kubernetes.io/pod-index": str(index),
        "controller-revision-hash": f"{workload['metadata']['name']}-{template_hash(template)}",
        "statefulset.kubernetes.io/pod-name": name,
    }
    pod = owned_pod(workload, template, name, labels, names)
    pod["spec"] |= {"hostname": name, "subdomain": workload["spec"].get("serviceName", "")}
    return pod


def _job_pod(job: Manifest, template: Manifest, names: Names) -> Manifest:
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    labels = {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
    pod = owned_pod(job, template, f"{name}-{names.suffix()}", labels, names)
    pod["spec"].setdefault("restartPolicy", "Never")
    return pod


def _bare_pod(pod: Manifest, names: Names) -> Manifest:
    """A static pod (kubernetes.io/config.source: file) is known to the API server by a mirror with another UID."""
    stored = deepcopy(pod)
    annotations = stored["metadata"].get("annotations", {})
    if annotations.get("kubernetes.io/config.source") == "file":
        config_hash = f"{names.rng.getrandbits(128):032x}"
        annotations |= {"kubernetes.io/config.hash": config_hash, "kubernetes.io/config.mirror": config_hash}
    return stored


def without(scenario: Scenario, left_out: tuple[str, ...]) -> Scenario:
    """The scenario without some workloads, each named "namespace/name" or "namespace/Kind/name"."""
    gone: set[str] = set()
    for wanted in left_out:
        found = {k for k, _ in scenario.workloads() if wanted in (k, f"{k.split('/')[0]}/{k.split('/')[2]}")}
        if not found:
            known = ", ".join(sorted(k for k, _ in scenario.workloads()))
            raise ScenarioError(f"{scenario.path}: --without {wanted}: no such workload; known: {known}")
        gone |= found
    if scenario.lab.select in gone:
        raise ScenarioError(f"{scenario.path}: --without {scenario.lab.select} is the selected workload; keep it")
    objects = tuple(item for item in scenario.objects if item["kind"] in CLUSTER_SCOPED or key_of(item) not in gone)
    return replace(scenario, objects=objects)
