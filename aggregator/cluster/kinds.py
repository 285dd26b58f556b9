"""The kinds that a watch follows, and where the API serves them.

`needed` = the resolver cannot answer without it: its cache must be filled before the view counts as read. The others
are followed where they are served; one that is not (404) is looked for again from time to time.
"""

from typing import NamedTuple


class Watched(NamedTuple):
    kind: str
    path: str
    needed: bool = False
    field_selector: str = ""

    @property
    def group(self) -> str:
        """The API group, "" for the core."""
        parts = self.path.split("/")
        return "" if parts[1] == "api" else parts[2]

    @property
    def resource(self) -> str:
        return self.path.rsplit("/", 1)[1]


# Where kubeadm, Cilium and the Amazon VPC CNI keep their settings; only these are read.
CONFIG_MAPS = ("kubeadm-config", "cilium-config", "amazon-vpc-cni")

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
    Watched("ServiceCIDR", "/apis/networking.k8s.io/v1/servicecidrs"),
    Watched("IPAddress", "/apis/networking.k8s.io/v1/ipaddresses"),
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
    Watched("HTTPRoute", "/apis/gateway.networking.k8s.io/v1/httproutes"),
    Watched("ServiceMonitor", "/apis/monitoring.coreos.com/v1/servicemonitors"),
    Watched("PodMonitor", "/apis/monitoring.coreos.com/v1/podmonitors"),
    Watched("CiliumNetworkPolicy", "/apis/cilium.io/v2/ciliumnetworkpolicies"),
    Watched("CiliumClusterwideNetworkPolicy", "/apis/cilium.io/v2/ciliumclusterwidenetworkpolicies"),
    Watched("CalicoNetworkPolicy", "/apis/crd.projectcalico.org/v1/networkpolicies"),
    Watched("GlobalNetworkPolicy", "/apis/crd.projectcalico.org/v1/globalnetworkpolicies"),
    Watched("AdminNetworkPolicy", "/apis/policy.networking.k8s.io/v1alpha1/adminnetworkpolicies"),
    Watched("BaselineAdminNetworkPolicy", "/apis/policy.networking.k8s.io/v1alpha1/baselineadminnetworkpolicies"),
    Watched("ClusterNetworkPolicy", "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies"),
)
