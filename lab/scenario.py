"""Reads a scenario: one YAML file of plain Kubernetes objects and one document with a `lab:` section.

Enters: a path. Leaves: a Scenario whose objects have the fields the lab plays with. Every error names the file, the
document, the field and the way out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from lab.errors import ScenarioError
from lab.settings import LabSection, Network, PortNumber, Run

Manifest = dict[str, Any]
DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=63)]
Labels = dict[str, str]
Checked = TypeVar("Checked", bound=BaseModel)


class Shape(BaseModel):
    """The part of an object that the lab relies on; the rest passes through untouched."""

    model_config = ConfigDict(extra="allow")


class Metadata(Shape):
    name: DnsLabel
    namespace: DnsLabel | None = None
    labels: Labels = {}


class ContainerPort(Shape):
    containerPort: PortNumber  # noqa: N815  # Kubernetes' own spelling
    name: str | None = None


class Container(Shape):
    name: DnsLabel
    ports: list[ContainerPort] = []


class PodSpec(Shape):
    containers: Annotated[list[Container], Field(min_length=1)]


class TemplateMetadata(Shape):
    labels: Labels = {}


class Template(Shape):
    metadata: TemplateMetadata = TemplateMetadata()
    spec: PodSpec


class Selector(Shape):
    matchLabels: Annotated[Labels, Field(min_length=1)]  # noqa: N815  # Kubernetes' own spelling


class ReplicatedSpec(Shape):
    replicas: Annotated[int, Field(ge=0, le=50)] = 1
    selector: Selector
    template: Template


class JobSpec(Shape):
    template: Template


class JobTemplate(Shape):
    spec: JobSpec


class CronJobSpec(Shape):
    schedule: str
    jobTemplate: JobTemplate  # noqa: N815  # Kubernetes' own spelling


class ServicePort(Shape):
    port: PortNumber
    name: str | None = None
    protocol: Literal["TCP", "UDP"] = "TCP"
    targetPort: PortNumber | str | None = None  # noqa: N815  # Kubernetes' own spelling


class ServiceSpec(Shape):
    selector: Annotated[Labels, Field(min_length=1)]
    clusterIP: str | None = None  # noqa: N815  # Kubernetes' own spelling
    ports: Annotated[list[ServicePort], Field(min_length=1)]


class AnyObject(Shape):
    apiVersion: str  # noqa: N815  # Kubernetes' own spelling
    kind: str
    metadata: Metadata


class Replicated(AnyObject):
    spec: ReplicatedSpec


class JobObject(AnyObject):
    spec: JobSpec


class CronJobObject(AnyObject):
    spec: CronJobSpec


class PodObject(AnyObject):
    spec: PodSpec


class ServiceObject(AnyObject):
    spec: ServiceSpec


class LabDocument(BaseModel):
    model_config = ConfigDict(extra="forbid")
    lab: LabSection


SHAPES: Mapping[str, type[AnyObject]] = {
    "Deployment": Replicated,
    "ReplicaSet": Replicated,
    "StatefulSet": Replicated,
    "DaemonSet": Replicated,
    "Job": JobObject,
    "CronJob": CronJobObject,
    "Pod": PodObject,
    "Service": ServiceObject,
}
WORKLOAD_KINDS = frozenset(SHAPES) - {"Service"}
CLUSTER_SCOPED = frozenset({"Namespace", "Node", "ServiceCIDR"})
WAYS_OUT = {
    "missing": "add it",
    "extra_forbidden": "remove it, or correct its spelling",
    "string_pattern_mismatch": "write it in that form",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    path: Path
    lab: LabSection
    objects: tuple[Manifest, ...]

    def workloads(self) -> Iterator[tuple[str, Manifest]]:
        """Everything that has pods, by "namespace/Kind/name"."""
        for item in self.objects:
            if item["kind"] in WORKLOAD_KINDS:
                yield key_of(item), item

    def node_names(self) -> list[str]:
        return [item["metadata"]["name"] for item in self.of_kind("Node")] or ["node-1"]

    def of_kind(self, kind: str) -> list[Manifest]:
        return [item for item in self.objects if item["kind"] == kind]


def key_of(item: Manifest) -> str:
    meta = item["metadata"]
    return f"{meta['namespace']}/{item['kind']}/{meta['name']}"


def pod_template(workload: Manifest) -> Manifest:
    """The labels and the spec of a workload's pods, as a template."""
    match workload["kind"]:
        case "Pod":
            return {"metadata": workload["metadata"], "spec": workload["spec"]}
        case "CronJob":
            template: Manifest = workload["spec"]["jobTemplate"]["spec"]["template"]
        case _:
            template = workload["spec"]["template"]
    return template


def load(path: Path) -> Scenario:
    try:
        documents = list(yaml.load_all(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}; give the path of a scenario, such as lab/shop.yaml") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: not YAML: {' '.join(str(error).split())}; correct that line") from error
    section: LabSection | None = None
    objects: list[Manifest] = []
    for number, document in enumerate(documents, start=1):
        if document is None:
            continue
        where = f"{path}, document {number}"
        if not isinstance(document, dict):
            raise ScenarioError(f"{where}: is no mapping; write a Kubernetes object or the `lab:` section")
        if "lab" in document and "kind" not in document:
            if section is not None:
                raise ScenarioError(f"{where}: a second `lab:` section; merge the two")
            section = _checked(LabDocument, document, where).lab
            continue
        items = document["items"] if document.get("kind") == "List" and "items" in document else [document]
        objects += [_object(item, where) for item in items]
    if section is None:
        raise ScenarioError(f"{path}: has no `lab:` section; add a document with `lab: {{name: ..., run: ...}}`")
    scenario = Scenario(path=path, lab=section, objects=tuple(objects))
    _cross_check(scenario)
    return scenario


def _object(item: Any, where: str) -> Manifest:
    if not isinstance(item, dict):
        raise ScenarioError(f"{where}: an item is no mapping; write a Kubernetes object")
    kind = item.get("kind", "object without kind")
    where = f"{where} ({kind} {(item.get('metadata') or {}).get('name', 'without name')})"
    _checked(SHAPES.get(str(kind), AnyObject), item, where)
    if kind not in CLUSTER_SCOPED:
        item["metadata"].setdefault("namespace", "default")
    return item


def _checked(model: type[Checked], value: Any, where: str) -> Checked:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # A union's member names are no part of the path that a person wrote.
        field = ".".join(str(part) for part in first["loc"])
        way_out = WAYS_OUT.get(first["type"])
        rest = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        message = first["msg"].removeprefix("Value error, ")
        raise ScenarioError(f"{where}, {field}: {message}{'; ' + way_out if way_out else ''}{rest}") from error


def _cross_check(scenario: Scenario) -> None:
    """What no object says by itself: names that must exist elsewhere in the file."""
    lab = scenario.lab
    _check_objects(scenario)
    workloads = dict(scenario.workloads())
    known = f"known workloads: {', '.join(sorted(workloads))}"
    for key, item in workloads.items():
        if key not in lab.run:
            raise ScenarioError(f"{scenario.path}: {key} has no entry in lab.run; say there what its containers run")
        if problem := _workload_problem(item, lab.run[key]):
            raise ScenarioError(f"{scenario.path}, lab.run[{key}]{problem}")
    for key in lab.run:
        if key not in workloads:
            raise ScenarioError(f"{scenario.path}: lab.run[{key}] has no such object; {known}")
    if lab.select not in workloads:
        raise ScenarioError(f"{scenario.path}: lab.select: {lab.select} is no workload here; {known}")


def _check_objects(scenario: Scenario) -> None:
    namespaces = {item["metadata"]["name"] for item in scenario.of_kind("Namespace")} | {"default", "kube-system"}
    seen: set[tuple[str, str, str]] = set()
    for item in scenario.objects:
        meta = item["metadata"]
        identity = (item["kind"], meta.get("namespace", ""), meta["name"])
        named = f"{scenario.path}: {' '.join(filter(None, identity))}"
        if identity in seen:
            raise ScenarioError(f"{named} stands there twice; remove one")
        seen.add(identity)
        if meta.get("namespace", "default") not in namespaces:
            raise ScenarioError(f"{named}: its namespace is not declared; add a Namespace object")
        if item["kind"] != "Service" or item["spec"].get("clusterIP") in (None, "None"):
            continue
        if not any(_within(item["spec"]["clusterIP"], network) for network in scenario.lab.cidrs.services):
            raise ScenarioError(f"{named}: spec.clusterIP is no address of lab.cidrs.services; take one from there")


def _within(address: str, network: Network) -> bool:
    try:
        return ip_address(address) in network
    except ValueError:
        return False


def _workload_problem(item: Manifest, run: Run) -> str | None:
    template = pod_template(item)
    if template["spec"].get("initContainers"):
        return ": its pods have initContainers, which the lab does not run; remove them"
    wanted = item["spec"].get("selector", {}).get("matchLabels", {})
    if not wanted.items() <= template.get("metadata", {}).get("labels", {}).items():
        return ": its object's spec.selector does not match the labels of spec.template; make them agree"
    names = {container["name"] for container in template["spec"]["containers"]}
    if names != set(run.containers):
        return f".containers names {sorted(run.containers)}, but the pods have {sorted(names)}; make them agree"
    if (item["kind"] == "CronJob") != (run.every_seconds is not None):
        return ".every_seconds: a CronJob needs it and nothing else takes it"
    if item["kind"] in {"CronJob", "Job"}:
        for name, program in run.containers.items():
            if program.lifetime_seconds is None and not program.command:
                return f".containers.{name}.lifetime_seconds is missing; a job has to end"
    return None
