"""One test a switch: what it adds, and that it is away without it."""

import base64
import json
import re
from typing import Any

import pytest

from tests.chart.rendering import (
    CHART,
    ROOT,
    container_of,
    environment_of,
    kinds,
    named,
    pod_of,
    render,
    values_of,
)

CAPABILITIES = ["BPF", "PERFMON", "NET_ADMIN", "SYS_PTRACE"]
POSTGRES = {"kind": "postgres", "postgres": {"secretName": "db"}}
SQLITE = {"kind": "sqlite"}


def agent(**values: Any) -> list[dict[str, Any]]:
    return render({"agent": values})


def mounts(objects: list[dict[str, Any]], program: str) -> dict[str, tuple[str, bool]]:
    return {
        each["name"]: (each["mountPath"], each.get("readOnly", False))
        for each in container_of(objects, program)["volumeMounts"]
    }


def volumes(objects: list[dict[str, Any]], program: str) -> dict[str, Any]:
    return {each.pop("name"): each for each in pod_of(objects, program)["spec"]["volumes"]}


# ---- the agent ------------------------------------------------------------------------------------------------------


def test_the_agent_has_four_capabilities_and_nothing_more() -> None:
    objects = render()
    assert container_of(objects, "agent")["securityContext"] == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "readOnlyRootFilesystem": True,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": CAPABILITIES},
        "seccompProfile": {"type": "RuntimeDefault"},
        "appArmorProfile": {"type": "Unconfined"},
    }
    pod = pod_of(objects, "agent")["spec"]
    assert pod["hostPID"] is True
    assert "hostNetwork" not in pod
    assert "hostIPC" not in pod


def test_privileged_takes_the_place_of_every_other_right() -> None:
    assert container_of(agent(privileged=True), "agent")["securityContext"] == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "readOnlyRootFilesystem": True,
        "privileged": True,
    }


def test_old_kernels_get_one_capability_more() -> None:
    added = container_of(agent(sysResource=True), "agent")["securityContext"]["capabilities"]["add"]
    assert added == [*CAPABILITIES, "SYS_RESOURCE"]


@pytest.mark.parametrize(
    ("version", "values", "annotated", "field"),
    [
        ("1.29.9", {}, True, False),
        ("v1.29.0-eks-1", {}, True, False),
        ("1.30.0", {}, False, True),
        ("v1.33.1+k3s1", {}, False, True),
        ("v1.30.2-gke.100", {}, False, True),
        ("1.29.0", {"privileged": True}, False, False),
        ("1.29.0", {"appArmorUnconfined": False}, False, False),
        ("1.33.0", {"appArmorUnconfined": False}, False, False),
    ],
)
def test_apparmor_is_lifted_the_way_the_version_knows(
    version: str, values: dict[str, Any], annotated: bool, field: bool
) -> None:
    objects = render({"kubeVersion": version, "agent": values})
    annotations = pod_of(objects, "agent")["metadata"].get("annotations", {})
    assert ("container.apparmor.security.beta.kubernetes.io/agent" in annotations) is annotated
    assert ("appArmorProfile" in container_of(objects, "agent")["securityContext"]) is field


def test_seccomp_and_selinux_are_taken_over() -> None:
    context = container_of(
        agent(seccompProfile={"type": "Localhost", "localhostProfile": "wattle.json"}, seLinuxOptions={"type": "t"}),
        "agent",
    )["securityContext"]
    assert context["seccompProfile"] == {"type": "Localhost", "localhostProfile": "wattle.json"}
    assert context["seLinuxOptions"] == {"type": "t"}


def test_what_the_agent_only_reads_is_mounted_read_only() -> None:
    objects = render()
    found = mounts(objects, "agent")
    assert found == {
        "cgroup": ("/host/cgroup", True),
        "pod-logs": ("/host/pods", True),
        "bpf": ("/sys/fs/bpf", False),
        "tracing": ("/sys/kernel/tracing", False),
        "tls": ("/run/wattle/tls", True),
        "token": ("/run/wattle/token", True),
        "tmp": ("/tmp", False),
        "spool": ("/var/lib/wattle", False),
    }
    host = {name: each["hostPath"]["path"] for name, each in volumes(objects, "agent").items() if "hostPath" in each}
    assert host == {
        "cgroup": "/sys/fs/cgroup",
        "pod-logs": "/var/log/pods",
        "bpf": "/sys/fs/bpf",
        "tracing": "/sys/kernel/tracing",
    }


def test_the_nodes_paths_can_be_elsewhere() -> None:
    paths = {"cgroup": "/a", "podLogs": "/b", "bpf": "/c", "tracing": "/d"}
    found = volumes(agent(hostPaths=paths), "agent")
    found = {name: each["hostPath"]["path"] for name, each in found.items() if "hostPath" in each}
    assert found == {"cgroup": "/a", "pod-logs": "/b", "bpf": "/c", "tracing": "/d"}


def test_the_agent_never_sees_the_key_of_ingest() -> None:
    assert volumes(render(), "agent")["tls"]["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]


def test_the_spool_has_three_media() -> None:
    disk = volumes(agent(spool={"sizeMebibytes": 256}), "agent")["spool"]
    assert disk == {"emptyDir": {"sizeLimit": "320Mi"}}
    objects = agent(spool={"medium": "hostPath", "hostPath": "/data/wattle", "sizeMebibytes": 1024})
    assert volumes(objects, "agent")["spool"]["hostPath"] == {"path": "/data/wattle", "type": "DirectoryOrCreate"}
    assert environment_of(objects, "agent")["WATTLE_SPOOL_DISK_BYTES"] == "1073741824"
    objects = agent(spool={"medium": "memory"})
    assert "spool" not in volumes(objects, "agent")
    assert "spool" not in mounts(objects, "agent")
    assert not any(name.startswith("WATTLE_SPOOL") for name in environment_of(objects, "agent"))


def test_every_node_gets_an_agent() -> None:
    assert pod_of(render(), "agent")["spec"]["tolerations"] == [{"operator": "Exists"}]


def test_upgrades_leave_a_few_nodes_at_a_time_without_an_agent() -> None:
    strategy = named(agent(maxUnavailable=3), "DaemonSet", "wattle-agent")["spec"]["updateStrategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": 3}


@pytest.mark.parametrize("program", ["agent", "aggregator"])
def test_scheduling_and_resources_are_taken_over(program: str) -> None:
    given: dict[str, Any] = {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "podAnnotations": {"a": "b"},
        "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}},
    }
    pod = pod_of(render({program: given}), program)
    for name in ("tolerations", "affinity", "priorityClassName"):
        assert pod["spec"][name] == given[name]
    assert pod["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux", "disk": "ssd"}
    assert pod["metadata"]["annotations"] == given["podAnnotations"]
    assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] == "2Gi"
    assert pod_of(render(), program)["spec"]["priorityClassName"] == "wattle"


# ---- the aggregator -------------------------------------------------------------------------------------------------


def test_the_aggregator_has_no_privilege() -> None:
    objects = render()
    assert container_of(objects, "aggregator")["securityContext"] == {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    context = pod_of(objects, "aggregator")["spec"]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == 65532
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_image_runs_as_the_user_that_the_chart_names() -> None:
    assert "USER 65532:65532" in (ROOT / "Dockerfile.aggregator").read_text()


def test_kubeconfigs_of_further_clusters_are_mounted_from_their_secret() -> None:
    objects = render({"aggregator": {"clusters": {"secretName": "kubeconfigs"}}})
    assert environment_of(objects, "aggregator")["WATTLE_KUBECONFIGS"] == "/run/wattle/clusters"
    assert mounts(objects, "aggregator")["clusters"] == ("/run/wattle/clusters", True)
    assert volumes(objects, "aggregator")["clusters"] == {"secret": {"secretName": "kubeconfigs", "defaultMode": 0o440}}
    without = render()
    assert "WATTLE_KUBECONFIGS" not in environment_of(without, "aggregator")
    assert "clusters" not in volumes(without, "aggregator")


def test_who_is_told_of_events_is_known_by_a_secret() -> None:
    told = {
        "secretName": "chat",
        "webhookUrlKey": "url",
        "webhookSecretKey": "sign",
        "alertmanagerTokenKey": "token",
    }
    objects = render({"aggregator": {"alerting": told}})
    env = {each["name"]: each for each in container_of(objects, "aggregator")["env"]}
    assert env["WATTLE_WEBHOOK_URL"]["valueFrom"] == {"secretKeyRef": {"name": "chat", "key": "url"}}
    files = {"webhook-secret": "WATTLE_WEBHOOK_SECRET_FILE", "alertmanager-token": "WATTLE_ALERTMANAGER_TOKEN_FILE"}
    where, read_only = mounts(objects, "aggregator")["alerting"]
    assert read_only
    assert {file: env[name]["value"] for file, name in files.items()} == {file: f"{where}/{file}" for file in files}
    items = [{"key": "sign", "path": "webhook-secret"}, {"key": "token", "path": "alertmanager-token"}]
    assert volumes(objects, "aggregator")["alerting"] == {
        "secret": {"secretName": "chat", "defaultMode": 0o440, "items": items}
    }
    without = render()
    assert "alerting" not in volumes(without, "aggregator")
    assert not {"WATTLE_WEBHOOK_URL", *files.values()} & environment_of(without, "aggregator").keys()


def test_sqlite_is_on_a_claim_of_one_pod() -> None:
    objects = render({"database": SQLITE})
    deployment = named(objects, "Deployment", "wattle-aggregator")["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    assert volumes(objects, "aggregator")["database"] == {"persistentVolumeClaim": {"claimName": "wattle-database"}}
    claim = named(objects, "PersistentVolumeClaim", "wattle-database")["spec"]
    assert claim == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}


def test_the_claim_can_be_another() -> None:
    for kind, program in (("sqlite", "aggregator"), ("trial", "postgres")):

        def with_storage(kind: str = kind, **storage: Any) -> list[dict[str, Any]]:
            return render({"database": {"kind": kind, "storage": storage}})

        objects = with_storage(size="1Ti", storageClassName="fast")
        claim = named(objects, "PersistentVolumeClaim", "wattle-database")["spec"]
        assert (claim["resources"]["requests"]["storage"], claim["storageClassName"]) == ("1Ti", "fast")
        objects = with_storage(existingClaim="mine")
        assert not any(kind.startswith("PersistentVolumeClaim") for kind in kinds(objects))
        assert volumes(objects, program)["database"]["persistentVolumeClaim"]["claimName"] == "mine"
        objects = with_storage(persistent=False)
        assert not any(kind.startswith("PersistentVolumeClaim") for kind in kinds(objects))
        assert volumes(objects, program)["database"] == {"emptyDir": {}}


def test_a_plain_install_brings_a_postgres_for_trying_out() -> None:
    objects = render()
    container = container_of(objects, "postgres")
    assert container["securityContext"] == container_of(objects, "aggregator")["securityContext"]
    assert pod_of(objects, "postgres")["spec"]["securityContext"]["runAsUser"] == 65532
    assert pod_of(objects, "postgres")["spec"]["automountServiceAccountToken"] is False
    secret = named(objects, "Secret", "wattle-postgres")["data"]
    password = base64.b64decode(secret["password"]).decode()
    assert len(password) == 40
    url = base64.b64decode(secret["url"]).decode()
    assert url == f"postgresql+psycopg://wattle:{password}@wattle-postgres.wattle.svc:5432/wattle"
    [variable] = [e for e in container_of(objects, "aggregator")["env"] if e["name"] == "WATTLE_DATABASE_URL"]
    assert variable["valueFrom"] == {"secretKeyRef": {"name": "wattle-postgres", "key": "url"}}
    assert named(objects, "Service", "wattle-postgres")["spec"]["clusterIP"] == "None"
    for kind in ("sqlite", "postgres"):
        others = render({"database": POSTGRES if kind == "postgres" else SQLITE})
        assert not any("postgres" in name for name in kinds(others))


def test_the_images_user_and_folders_are_the_charts() -> None:
    text = (ROOT / "Dockerfile.postgres").read_text()
    assert "USER 65532:65532" in text
    assert "--uid 65532 --gid 65532 postgres" in text
    objects = render()
    assert mounts(objects, "postgres")["database"] == ("/var/lib/postgresql", False)
    listed = {each["name"]: each["value"] for each in container_of(objects, "postgres")["env"]}
    assert listed["PGDATA"].startswith("/var/lib/postgresql/")
    assert listed["WATTLE_PASSWORD_FILE"] == f"{mounts(objects, 'postgres')['password'][0]}/password"


def test_a_migration_comes_before_everything_else() -> None:
    job = named(render({"database": POSTGRES}), "Job", "wattle-migration")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    [container] = job["spec"]["template"]["spec"]["containers"]
    aggregator = container_of(render({"database": POSTGRES}), "aggregator")
    assert container["args"] == ["--migrate"]
    assert container["image"] == aggregator["image"]
    assert container["env"][0] == next(e for e in aggregator["env"] if e["name"] == "WATTLE_DATABASE_URL")
    assert container["securityContext"] == aggregator["securityContext"]
    off = {"kind": "postgres", "postgres": {"secretName": "db", "migrationJob": False}}
    for database in (off, {}, SQLITE):
        assert "Job/wattle-migration" not in kinds(render({"database": database}))


def test_postgres_is_yours_and_its_url_stays_in_the_secret() -> None:
    database = {"kind": "postgres", "postgres": {"secretName": "db", "secretKey": "uri"}}
    objects = render({"database": database})
    [url] = [e for e in container_of(objects, "aggregator")["env"] if e["name"] == "WATTLE_DATABASE_URL"]
    assert url == {"name": "WATTLE_DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "db", "key": "uri"}}}
    assert "database" not in volumes(objects, "aggregator")
    assert not any(kind.startswith("PersistentVolumeClaim") for kind in kinds(objects))
    strategy = named(objects, "Deployment", "wattle-aggregator")["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_several_replicas_keep_apart_and_are_not_all_evicted_at_once() -> None:
    objects = render({"database": POSTGRES, "aggregator": {"replicas": 3}})
    assert named(objects, "PodDisruptionBudget", "wattle-aggregator")["spec"]["maxUnavailable"] == 1
    assert "podAntiAffinity" in pod_of(objects, "aggregator")["spec"]["affinity"]
    [spread] = pod_of(objects, "aggregator")["spec"]["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("topology.kubernetes.io/zone", "ScheduleAnyway")
    assert "affinity" not in pod_of(render(), "aggregator")["spec"]
    assert "PodDisruptionBudget/wattle-aggregator" not in kinds(render())


# ---- doors ----------------------------------------------------------------------------------------------------------


def test_ports_meet_wherever_they_are_named() -> None:
    values = {
        "agent": {"httpPort": 9999},
        "aggregator": {"httpPort": 8000, "ingestPort": 8001, "queryPort": 8002},
        "listenAddress": "[::]",
        "networkPolicy": {"enabled": True},
    }
    objects = render(values)
    told = environment_of(objects, "agent")
    assert told["WATTLE_SERVER"] == "wattle-ingest.wattle.svc:8001"
    assert told["WATTLE_HTTP_LISTEN"] == "[::]:9999"
    heard = environment_of(objects, "aggregator")
    listening = [heard[f"WATTLE_{door}_LISTEN"] for door in ("HTTP", "INGEST", "QUERY")]
    assert listening == ["[::]:8000", "[::]:8001", "[::]:8002"]
    ports = {p["name"]: p["containerPort"] for p in container_of(objects, "aggregator")["ports"]}
    assert ports == {"http": 8000, "ingest": 8001, "query": 8002}
    for name, number in ports.items():
        [port] = named(objects, "Service", f"wattle-{name}")["spec"]["ports"]
        assert (port["port"], port["targetPort"]) == (number, name)
    assert container_of(objects, "agent")["ports"] == [{"name": "http", "containerPort": 9999}]
    [rule, _] = named(objects, "NetworkPolicy", "wattle-agent")["spec"]["egress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8001}]


def test_ingress() -> None:
    assert "Ingress/wattle" not in kinds(render())
    given = {
        "enabled": True,
        "className": "c",
        "host": "h.example.com",
        "tlsSecretName": "t",
        "annotations": {"a": "b"},
    }
    ingress = named(render({"ingress": given}), "Ingress", "wattle")
    assert ingress["metadata"]["annotations"] == {"a": "b"}
    assert ingress["spec"]["ingressClassName"] == "c"
    assert ingress["spec"]["tls"] == [{"hosts": ["h.example.com"], "secretName": "t"}]
    [rule] = ingress["spec"]["rules"]
    assert rule["host"] == "h.example.com"
    assert rule["http"]["paths"][0]["backend"] == {"service": {"name": "wattle-http", "port": {"name": "http"}}}


def test_http_route() -> None:
    assert "HTTPRoute/wattle" not in kinds(render())
    parent = {"name": "public", "namespace": "gateways", "sectionName": "https"}
    given = {"enabled": True, "parentRefs": [parent], "hostnames": ["h.example.com"]}
    route = named(render({"httpRoute": given}), "HTTPRoute", "wattle")["spec"]
    assert (route["parentRefs"], route["hostnames"]) == ([parent], ["h.example.com"])
    assert route["rules"][0]["backendRefs"] == [{"name": "wattle-http", "port": 8470}]


def test_priority_class() -> None:
    objects = render({"priorityClass": {"value": 7}})
    assert named(objects, "PriorityClass", "wattle")["value"] == 7
    for program in ("agent", "aggregator", "postgres"):
        assert pod_of(objects, program)["spec"]["priorityClassName"] == "wattle"
    without = render({"priorityClass": {"create": False}})
    assert "PriorityClass/wattle" not in kinds(without)
    assert "priorityClassName" not in pod_of(without, "agent")["spec"]
    given = render({"agent": {"priorityClassName": "system-node-critical"}})
    assert pod_of(given, "agent")["spec"]["priorityClassName"] == "system-node-critical"


def test_openshift_chooses_users_and_gets_constraints_for_the_agent() -> None:
    objects = render({"platform": "openshift", "database": POSTGRES})
    assert pod_of(objects, "aggregator")["spec"]["securityContext"].keys() == {
        "runAsNonRoot",
        "fsGroupChangePolicy",
        "seccompProfile",
    }
    constraints = named(objects, "SecurityContextConstraints", "wattle-agent")
    assert constraints["users"] == ["system:serviceaccount:wattle:wattle-agent"]
    assert constraints["allowedCapabilities"] == CAPABILITIES
    assert constraints["allowPrivilegedContainer"] is False
    asked = {next(iter(volume)) for volume in volumes(objects, "agent").values()}
    assert asked <= set(constraints["volumes"])
    privileged = render({"platform": "openshift", "database": POSTGRES, "agent": {"privileged": True}})
    assert named(privileged, "SecurityContextConstraints", "wattle-agent")["allowPrivilegedContainer"] is True
    assert not any("SecurityContext" in kind for kind in kinds(render()))


def test_dashboard() -> None:
    assert "ConfigMap/wattle-dashboard" not in kinds(render())
    found = named(
        render({"monitoring": {"dashboard": {"enabled": True, "labels": {"a": "b"}}}}), "ConfigMap", "wattle-dashboard"
    )
    assert found["metadata"]["labels"]["a"] == "b"
    assert json.loads(found["data"]["wattle.json"]) == json.loads((CHART / "files" / "dashboard.json").read_text())


def test_monitoring() -> None:
    assert not any("Monitor" in kind for kind in kinds(render()))
    objects = render({"monitoring": {"enabled": True, "labels": {"release": "p"}, "interval": "5s"}})
    rule = named(objects, "PrometheusRule", "wattle")
    assert rule["metadata"]["labels"]["release"] == "p"
    assert rule["spec"] == values_of(CHART / "files" / "rules.yaml")
    for kind, name, key in (
        ("PodMonitor", "wattle-agent", "podMetricsEndpoints"),
        ("ServiceMonitor", "wattle-aggregator", "endpoints"),
    ):
        monitor = named(objects, kind, name)
        assert monitor["metadata"]["labels"]["release"] == "p"
        [endpoint] = monitor["spec"][key]
        assert (endpoint["port"], endpoint["path"], endpoint["interval"]) == ("http", "/metrics", "5s")
    selected = named(objects, "ServiceMonitor", "wattle-aggregator")["spec"]["selector"]["matchLabels"].items()
    services = [e for e in objects if e["kind"] == "Service" and selected <= e["metadata"]["labels"].items()]
    assert [service["metadata"]["name"] for service in services] == ["wattle-http"]


def test_network_policies_for_wattle_itself() -> None:
    assert not any(kind.startswith("NetworkPolicy") for kind in kinds(render()))
    peer = {"namespaceSelector": {"matchLabels": {"a": "b"}}}
    given = {
        "enabled": True,
        "apiServerPorts": [16443],
        "alertingPorts": [9093],
        "httpFrom": [peer],
        "metricsFrom": [peer],
    }
    objects = render({"networkPolicy": given, "database": POSTGRES})
    policy = named(objects, "NetworkPolicy", "wattle-aggregator")["spec"]
    assert policy["ingress"][1] == {
        "from": [peer],
        "ports": [{"protocol": "TCP", "port": 8470}, {"protocol": "TCP", "port": 8472}],
    }
    assert [p["port"] for rule in policy["egress"] for p in rule["ports"]] == [16443, 9093, 53, 53, 5432]
    assert named(objects, "NetworkPolicy", "wattle-agent")["spec"]["ingress"][0]["from"] == [peer]
    closed = render({"networkPolicy": {"enabled": True}})
    agents = named(closed, "NetworkPolicy", "wattle-agent")["spec"]
    assert "ingress" not in agents
    assert agents["policyTypes"] == ["Ingress", "Egress"]
    policy = named(closed, "NetworkPolicy", "wattle-aggregator")["spec"]
    assert policy["ingress"][1]["from"] == [{"namespaceSelector": {}}]
    assert [p["port"] for rule in policy["egress"] for p in rule["ports"]] == [443, 6443, 53, 53, 5432]
    database = named(closed, "NetworkPolicy", "wattle-postgres")["spec"]
    assert (database["policyTypes"], "egress" in database) == (["Ingress", "Egress"], False)
    [callers] = database["ingress"]
    [selector] = callers["from"]
    assert selector["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "aggregator"


# ---- names and images -----------------------------------------------------------------------------------------------


def test_images() -> None:
    assert container_of(render(), "agent")["image"] == "localhost/wattle-agent:0.1.0"
    given: dict[str, Any] = {
        "image": {"registry": "r.example.com/x", "tag": "t", "pullPolicy": "Always", "pullSecrets": ["s"]},
        "agent": {"digest": f"sha256:{'a' * 64}"},
        "aggregator": {"digest": f"sha256:{'b' * 64}"},
    }
    for program, letter in (("agent", "a"), ("aggregator", "b")):
        objects = render(given)
        assert container_of(objects, program)["image"] == f"r.example.com/x/wattle-{program}@sha256:{letter * 64}"
        assert container_of(objects, program)["imagePullPolicy"] == "Always"
        assert pod_of(objects, program)["spec"]["imagePullSecrets"] == [{"name": "s"}]
        assert "imagePullSecrets" not in pod_of(render(), program)["spec"]
    del given["agent"]
    assert container_of(render(given), "agent")["image"] == "r.example.com/x/wattle-agent:t"


@pytest.mark.parametrize(
    ("release", "override", "expected"),
    [("wattle", "", "wattle"), ("my-wattle", "", "my-wattle"), ("x", "", "x-wattle"), ("x", "fence", "fence")],
)
def test_names(release: str, override: str, expected: str) -> None:
    objects = render({"fullnameOverride": override}, name=release)
    assert f"DaemonSet/{expected}-agent" in kinds(objects)
    # fullnameOverride aside, nothing of the chart has a name that another release could have, too.
    assert all(re.match(rf"{expected}(-|$)", each["metadata"]["name"]) for each in objects)


def test_the_cluster_has_one_name() -> None:
    objects = render({"cluster": "east"})
    assert {environment_of(objects, program)["WATTLE_CLUSTER"] for program in ("agent", "aggregator")} == {"east"}
