"""What stands in files: a cluster on one page, or plain manifests, ready for the policy engine.

Enters: a path (a file of scenarios, a file of manifests, a directory of manifests). Leaves: Offline values. Every
refusal is an InputError that names file, document and field.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aggregator.cluster.manifests import SUFFIXES, ManifestSource
from aggregator.cluster.scenario import Scenario, parse_scenarios
from aggregator.cluster.yamltext import load_documents
from aggregator.errors import InputError
from aggregator.model.adminpolicy import AdminPolicy, ForeignPolicy, Policy
from aggregator.model.cluster import ClusterSnapshot
from aggregator.model.finding import Finding
from aggregator.model.link import ObservedLink
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.settings import Settings
from aggregator.policy.manifest.adminparse import KINDS, parse_any
from aggregator.services.offline import settings_of
from aggregator.services.offline.flows import resolve_flows
from aggregator.services.offline.foreign import foreign_policy
from aggregator.services.offline.templates import with_stand_ins


@dataclass(frozen=True, kw_only=True)
class Offline:
    """One cluster from files. `objects` are the raw NetworkPolicies, for what only the text shows."""

    name: str
    file: str
    cluster: ClusterSnapshot
    policies: tuple[Policy, ...]
    objects: tuple[Mapping[str, Any], ...]
    links: tuple[ObservedLink, ...] = ()
    findings: tuple[Finding, ...] = ()
    settings: Settings = field(default_factory=Settings)
    scenario: Scenario | None = None

    @property
    def native(self) -> tuple[NetworkPolicy, ...]:
        return tuple(policy for policy in self.policies if isinstance(policy, NetworkPolicy))


@dataclass(frozen=True, slots=True)
class _Document:
    file: str
    number: int
    value: Any


def load(path: Path) -> tuple[Offline, ...]:
    """Everything at a path. Raises InputError."""
    if path.is_dir():
        return (_from_manifests(path, _documents(path)),)
    text = _read(path)
    documents = [_Document(str(path), n, d) for n, d in enumerate(load_documents(text, file=str(path)), start=1)]
    first = next((d.value for d in documents if d.value is not None), None)
    if first is None:
        raise InputError("is empty", file=str(path))
    if isinstance(first, Mapping) and "kind" in first:
        return (_from_manifests(path, documents),)
    return tuple(_from_scenario(scenario) for scenario in _scenarios(text, path))


def load_pages(path: Path) -> tuple[Scenario, ...]:
    """The scenarios of a file that must hold some. Raises InputError."""
    return _scenarios(_read(path), path)


def _scenarios(text: str, path: Path) -> tuple[Scenario, ...]:
    found = parse_scenarios(text, file=str(path))
    if not found:
        raise InputError("is empty", file=str(path))
    return found


def load_all(paths: Iterable[Path]) -> tuple[Offline, ...]:
    return tuple(offline for path in paths for offline in load(path))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise InputError(f"is no text in UTF-8: {exc.reason} at byte {exc.start}", file=str(path)) from exc
    except OSError as exc:
        raise InputError(f"cannot be read: {exc.strerror or exc}", file=str(path)) from exc


def _from_scenario(scenario: Scenario) -> Offline:
    flows = resolve_flows(scenario)
    return Offline(
        name=scenario.name,
        file=scenario.file,
        cluster=scenario.cluster,
        policies=scenario.policies,
        objects=tuple(obj for obj in scenario.policy_objects if obj.get("kind") == "NetworkPolicy"),
        links=flows.links,
        findings=flows.findings,
        settings=settings_of(scenario),
        scenario=scenario,
    )


# ---- manifests


def _documents(directory: Path) -> Iterator[_Document]:
    found = False
    for path in sorted(directory.rglob("*")):
        if path.suffix in SUFFIXES and not path.name.startswith(".") and path.is_file():
            found = True
            for number, value in enumerate(load_documents(_read(path), file=str(path)), start=1):
                yield _Document(str(path), number, value)
    if not found:
        raise InputError(f"holds no file ending in {', '.join(SUFFIXES)}", file=str(directory))


def _from_manifests(path: Path, documents: Iterable[_Document]) -> Offline:
    policies: list[Policy] = []
    objects: list[Mapping[str, Any]] = []
    raw: list[Mapping[str, Any]] = []
    for document in documents:
        for at, obj in _flattened(document.value, ""):
            raw.append(obj)
            policy = _policy(obj, document, at)
            if policy is not None:
                policies.append(policy)
            if isinstance(policy, NetworkPolicy):
                objects.append(obj)
    source = ManifestSource(path)
    source.load()
    cluster = with_stand_ins(source.snapshot, raw)
    extra = tuple(policy for policy in policies if isinstance(policy, AdminPolicy | ForeignPolicy))
    native = tuple(policy for policy in policies if isinstance(policy, NetworkPolicy))
    return Offline(
        name=path.name,
        file=str(path),
        cluster=replace(cluster, policies=native, extra_policies=extra),
        policies=tuple(policies),
        objects=tuple(objects),
        findings=source.findings,
    )


def _policy(obj: Mapping[str, Any], document: _Document, at: str) -> Policy | None:
    """The policy that an object is, None when it is something else."""
    try:
        if (foreign := foreign_policy(obj)) is not None:
            return foreign
        return parse_any(obj) if obj.get("kind") in KINDS else None
    except InputError as exc:
        field_ = ".".join(part for part in (at, exc.field) if part)
        raise InputError(exc.reason, file=document.file, document=document.number, field=field_) from exc


def _flattened(value: object, at: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects of a document; a List is the objects in it."""
    if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
        return
    items = value.get("items")
    if value["kind"].endswith("List") and isinstance(items, list):
        kind, version = value["kind"].removesuffix("List"), value.get("apiVersion")
        for index, item in enumerate(items):
            named = {"kind": kind, "apiVersion": version, **item} if kind and isinstance(item, Mapping) else item
            yield from _flattened(named, f"items[{index}]")
        return
    yield at, value
