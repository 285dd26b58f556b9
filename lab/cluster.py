"""What every cluster has and no scenario should have to write: namespaces, nodes, address ranges, the API's Service.

Enters: a Scenario and its node plans. Leaves: manifests as an API server would hold them. Pure.
"""

from copy import deepcopy

from lab.addresses import NodePlan, ServiceAddresses
from lab.controller import Names, admit
from lab.scenario import Manifest, Scenario


def admit_service(service: Manifest, addresses: ServiceAddresses, names: Names) -> Manifest:
    """A Service with what the API server defaults: families, cluster addresses, protocols and target ports."""
    stored = admit(service, names)
    spec = stored["spec"]
    families = list(spec.get("ipFamilies", ["IPv4"]))
    if spec.get("ipFamilyPolicy") in {"PreferDualStack", "RequireDualStack"}:
        families += [
            f for f in ("IPv4", "IPv6") if f not in families and (f == "IPv4" or len(addresses.cidrs.pods) == 2)
        ]
    if spec.get("clusterIP") == "None":
        spec["clusterIPs"] = ["None"]
    else:
        first = spec.get("clusterIP") or addresses.take(families[0])
        spec["clusterIPs"] = [first, *(addresses.take(family) for family in families[1:])]
        spec["clusterIP"] = first
    spec["ipFamilies"] = families
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    spec.setdefault("type", "ClusterIP")
    for port in spec["ports"]:
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])
    return stored


def cluster_objects(scenario: Scenario, nodes: tuple[NodePlan, ...], names: Names) -> list[Manifest]:
    """What every cluster has and no scenario should have to write: namespaces, nodes, ranges, the API's Service."""
    cidrs = scenario.lab.cidrs
    declared = {item["metadata"]["name"] for item in scenario.of_kind("Namespace")}
    found = [_namespace(name) for name in ("default", "kube-system") if name not in declared]
    nodes_by_name = {item["metadata"]["name"]: item for item in scenario.of_kind("Node")}
    found += [_node(plan, nodes_by_name.get(plan.name)) for plan in nodes]
    found.append(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": [str(network) for network in cidrs.services]},
        }
    )
    networking = {
        "dnsDomain": scenario.lab.domain,
        "podSubnet": ",".join(map(str, cidrs.pods)),
        "serviceSubnet": ",".join(map(str, cidrs.services)),
    }
    lines = "".join(f"  {name}: {value}\n" for name, value in networking.items())
    found.append(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "kubeadm-config", "namespace": "kube-system"},
            "data": {"ClusterConfiguration": f"kind: ClusterConfiguration\nnetworking:\n{lines}"},
        }
    )
    others = [
        item
        for item in scenario.objects
        if item["kind"] == "Namespace"
        or (item["kind"] not in {"Node", "Service"} | {w["kind"] for _, w in scenario.workloads()})
    ]
    return [admit(item, names) for item in found + others]


def _namespace(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _node(plan: NodePlan, declared: Manifest | None) -> Manifest:
    item: Manifest = deepcopy(declared or {"apiVersion": "v1", "kind": "Node", "metadata": {"name": plan.name}})
    labels = item["metadata"].setdefault("labels", {})
    labels |= {"kubernetes.io/hostname": plan.name, "kubernetes.io/os": "linux"}
    item["spec"] = {
        **item.get("spec", {}),
        "podCIDR": str(plan.pod_networks[0]),
        "podCIDRs": [str(network) for network in plan.pod_networks],
    }
    item["status"] = {
        "addresses": [
            *({"type": "InternalIP", "address": str(address)} for address in plan.addresses),
            {"type": "Hostname", "address": plan.name},
        ],
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        "nodeInfo": {"operatingSystem": "linux"},
    }
    return item


def api_service(scenario: Scenario, names: Names) -> Manifest:
    """default/kubernetes: a Service without a selector, on the first address of the range."""
    address = str(scenario.lab.cidrs.services[0][1])
    return admit(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": address,
                "clusterIPs": [address],
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
            },
        },
        names,
    )
