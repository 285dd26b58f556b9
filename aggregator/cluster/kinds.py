"""The kinds that a watch follows, and where the API serves them.

`needed` = the resolver cannot answer without it: its cache must be filled before the view counts as read. The others
are followed where they are served; one that is not (404) is looked for again from time to time, and at once when its
definition comes. `elsewhere` = where else it may be served: the first path that is, counts.
"""

from collections.abc import Iterator
from typing import NamedTuple


class Watched(NamedTuple):
    kind: str
    path: str
    needed: bool = False
    field_selector: str = ""
    elsewhere: tuple[str, ...] = ()
    page: int = 500  # objects of one answer

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path, *self.elsewhere)

    @property
    def group(self) -> str:
        """The API group, "" for the core."""
        return group_of(self.path)

    @property
    def groups(self) -> Iterator[str]:
        """Those of every path, each once."""
        yield from dict.fromkeys(map(group_of, self.paths))

    @property
    def definitions(self) -> frozenset[str]:
        """The names of the CustomResourceDefinitions that serve it."""
        return frozenset(f"{self.resource}.{group}" for group in self.groups)

    @property
    def resource(self) -> str:
        return self.path.rsplit("/", 1)[1]


def group_of(path: str) -> str:
    """The API group of a path, "" for the core."""
    parts = path.split("/")
    return "" if parts[1] == "api" else parts[2]


# Where kubeadm, Cilium and the Amazon VPC CNI keep their settings; only these are read.
CONFIG_MAPS = ("kubeadm-config", "cilium-config", "amazon-vpc-cni")
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

WATCHED = (
    Watched("Namespace", "/api/v1/namespaces", needed=True),
    Watched("Node", "/api/v1/nodes", needed=True),
    Watched("ReplicaSet", "/apis/apps/v1/replicasets", needed=True),
    Watched("Job", "/apis/batch/v1/jobs", needed=True),
    Watched("Pod", "/api/v1/pods", needed=True),
    Watched("Service", "/api/v1/services", needed=True),
    Watched("EndpointSlice", "/apis/discovery.k8s.io/v1/endpointslices", needed=True),
    Watched("NetworkPolicy", "/apis/networking.k8s.io/v1/networkpolicies", needed=True),
    Watched("Deployment", "/apis/apps/v1/deployments"),
    Watched("StatefulSet", "/apis/apps/v1/statefulsets"),
    Watched("DaemonSet", "/apis/apps/v1/daemonsets"),
    Watched("CronJob", "/apis/batch/v1/cronjobs"),
    Watched(
        "ServiceCIDR",
        "/apis/networking.k8s.io/v1/servicecidrs",
        elsewhere=("/apis/networking.k8s.io/v1beta1/servicecidrs",),
    ),
    Watched(
        "IPAddress",
        "/apis/networking.k8s.io/v1/ipaddresses",
        elsewhere=("/apis/networking.k8s.io/v1beta1/ipaddresses",),
    ),
    *(
        Watched(
            f"ConfigMap:{name}", "/api/v1/namespaces/kube-system/configmaps", field_selector=f"metadata.name={name}"
        )
        for name in CONFIG_MAPS
    ),
    Watched("ValidatingWebhookConfiguration", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"),
    Watched("MutatingWebhookConfiguration", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"),
    Watched("APIService", "/apis/apiregistration.k8s.io/v1/apiservices"),
    Watched("Ingress", "/apis/networking.k8s.io/v1/ingresses"),
    Watched("CustomResourceDefinition", DEFINITIONS, page=20),  # some are half a megabyte
    Watched(
        "HTTPRoute",
        "/apis/gateway.networking.k8s.io/v1/httproutes",
        elsewhere=("/apis/gateway.networking.k8s.io/v1beta1/httproutes",),
    ),
    Watched("ServiceMonitor", "/apis/monitoring.coreos.com/v1/servicemonitors"),
    Watched("PodMonitor", "/apis/monitoring.coreos.com/v1/podmonitors"),
    Watched("CiliumNetworkPolicy", "/apis/cilium.io/v2/ciliumnetworkpolicies"),
    Watched("CiliumClusterwideNetworkPolicy", "/apis/cilium.io/v2/ciliumclusterwidenetworkpolicies"),
    # From 3.32 on Calico may keep its policies as projectcalico.org/v3 alone.
    Watched(
        "CalicoNetworkPolicy",
        "/apis/crd.projectcalico.org/v1/networkpolicies",
        elsewhere=("/apis/projectcalico.org/v3/networkpolicies",),
    ),
    Watched(
        "GlobalNetworkPolicy",
        "/apis/crd.projectcalico.org/v1/globalnetworkpolicies",
        elsewhere=("/apis/projectcalico.org/v3/globalnetworkpolicies",),
    ),
    Watched(
        "AntreaNetworkPolicy",
        "/apis/crd.antrea.io/v1beta1/networkpolicies",
        elsewhere=("/apis/crd.antrea.io/v1alpha1/networkpolicies",),
    ),
    Watched(
        "AntreaClusterNetworkPolicy",
        "/apis/crd.antrea.io/v1beta1/clusternetworkpolicies",
        elsewhere=("/apis/crd.antrea.io/v1alpha1/clusternetworkpolicies",),
    ),
    Watched("AdminNetworkPolicy", "/apis/policy.networking.k8s.io/v1alpha1/adminnetworkpolicies"),
    Watched("BaselineAdminNetworkPolicy", "/apis/policy.networking.k8s.io/v1alpha1/baselineadminnetworkpolicies"),
    Watched("ClusterNetworkPolicy", "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies"),
)
