"""The chart against a real API server: install, upgrade, roll back, uninstall, and nothing is left."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from agent.spool import Spool, SpoolLimits
from agent.stream import FlowLinkStream, StreamConfig, TokenTls
from tests.cluster.controlplane import Admin, ApiRefusal, ControlPlane, wait_until
from tests.cluster.kubelet import pod_spec
from tests.cluster.release import NAME, RELEASE, SQLITE, certificate, released_aggregator
from tests.flowlink import batch_of, flows, until

helm_python = pytest.importorskip("helm_python", reason="Helm's SDK has no wheel for this machine")

NOTHING_RUNS = {"active": 0, "ready": 0, "terminating": 0}
NAMESPACED = (
    "/api/v1/namespaces/{}/secrets",
    "/api/v1/namespaces/{}/services",
    "/api/v1/namespaces/{}/serviceaccounts",
    "/api/v1/namespaces/{}/persistentvolumeclaims",
    "/apis/apps/v1/namespaces/{}/deployments",
    "/apis/apps/v1/namespaces/{}/daemonsets",
    "/apis/apps/v1/namespaces/{}/statefulsets",
    "/apis/batch/v1/namespaces/{}/jobs",
    "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "/apis/networking.k8s.io/v1/namespaces/{}/ingresses",
)
ELSEWHERE = (
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/scheduling.k8s.io/v1/priorityclasses",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings",
)


def made(admin: Admin, place: str) -> list[str]:
    """Everything that carries the release's label."""
    paths = [path.format(place) for path in NAMESPACED] + list(ELSEWHERE)
    found = []
    for path in paths:
        listed = admin.get(f"{path}?labelSelector=app.kubernetes.io%2Finstance%3D{RELEASE}")
        found += [f"{path.rpartition('/')[2]}/{item['metadata']['name']}" for item in listed["items"]]
    return sorted(found)


def secret(admin: Admin, place: str, name: str) -> dict[str, str]:
    data: dict[str, str] = admin.get(f"/api/v1/namespaces/{place}/secrets/{NAME}-{name}")["data"]
    return data


def test_a_release_comes_changes_goes_back_and_goes(helm: Any, chart: str, admin: Admin, place: str) -> None:
    helm.install(chart, RELEASE, {}, namespace=place)
    plain = made(admin, place)
    assert f"daemonsets/{NAME}-agent" in plain
    assert f"clusterroles/{NAME}-aggregator" in plain
    assert f"statefulsets/{NAME}-postgres" in plain
    first = certificate(admin, place)
    assert sorted(first) == ["ca.crt", "tls.crt", "tls.key"]
    password = secret(admin, place, "postgres")
    helm.upgrade(chart, RELEASE, {}, namespace=place)
    assert secret(admin, place, "postgres") == password, "the database knows no other"

    changed = {
        "networkPolicy": {"enabled": True},
        "database": {"kind": "postgres", "postgres": {"secretName": "db", "migrationJob": False}},  # no kubelet runs it
        "aggregator": {"replicas": 2},
        "ingress": {"enabled": True, "host": "wattle.example.com", "tlsSecretName": "web"},
        "agent": {"sysResource": True, "spool": {"medium": "hostPath"}},  # this API server forbids privileged
    }
    helm.upgrade(chart, RELEASE, changed, namespace=place)
    wait_until(lambda: f"persistentvolumeclaims/{NAME}-database" not in made(admin, place), "the claim's end")
    assert f"statefulsets/{NAME}-postgres" not in made(admin, place)
    more = set(made(admin, place)) - set(plain)
    assert more == {
        f"networkpolicies/{NAME}-agent",
        f"networkpolicies/{NAME}-aggregator",
        f"poddisruptionbudgets/{NAME}-aggregator",
        f"ingresses/{NAME}",
    }
    assert certificate(admin, place) == first, "an upgrade must not take the certificate from under the agents"

    admin.delete(f"/api/v1/namespaces/{place}/secrets/{NAME}-ingest-tls")
    template = Path(chart) / "templates" / "aggregator" / "tls.yaml"
    text = template.read_text()
    template.write_text(text.replace("57600", "0"))  # a certificate whose last third begins at once
    helm.upgrade(chart, RELEASE, changed, namespace=place)
    renewed = certificate(admin, place)
    assert renewed["ca.crt"] == first["ca.crt"], "agents go on trusting: the authority is the same"
    assert renewed["tls.crt"] != first["tls.crt"]
    template.write_text(text)
    helm.upgrade(chart, RELEASE, changed, namespace=place)
    again = certificate(admin, place)
    assert again["tls.crt"] != renewed["tls.crt"], "an upgrade renews it"
    helm.upgrade(chart, RELEASE, changed, namespace=place)
    assert certificate(admin, place) == again, "and no sooner than it must"

    helm.rollback(RELEASE, version=1)
    assert made(admin, place) == plain

    helm.uninstall(RELEASE)
    wait_until(lambda: made(admin, place) == [], "the release's end")


def test_a_contradiction_makes_nothing(helm: Any, chart: str, admin: Admin, place: str) -> None:
    contradiction = {"aggregator": {"replicas": 2}, "database": SQLITE}
    with pytest.raises(helm_python.HelmError, match=r"needs database\.kind=postgres"):
        helm.install(chart, RELEASE, contradiction, namespace=place)
    assert made(admin, place) == []


def test_the_released_account_has_the_rights_of_the_view_and_no_more(
    helm: Any, chart: str, plane: ControlPlane, admin: Admin, place: str
) -> None:
    helm.install(chart, RELEASE, {}, namespace=place)
    user = f"system:serviceaccount:{place}:{NAME}-aggregator"

    def may(verb: str, group: str, resource: str, namespace: str = "") -> bool:
        attributes = {"verb": verb, "group": group, "resource": resource, "namespace": namespace}
        review = {"spec": {"user": user, "resourceAttributes": attributes}}
        answer = admin.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        return bool(answer["status"]["allowed"])

    # RBAC follows its objects at its own pace.
    wait_until(lambda: may("watch", "", "pods"), "the aggregator's right to see pods")
    assert may("create", "authentication.k8s.io", "tokenreviews")
    assert not may("get", "", "secrets", place)
    assert not may("create", "networking.k8s.io", "networkpolicies", place)
    user = f"system:serviceaccount:{place}:{NAME}-agent"
    assert not may("list", "", "pods")


def test_every_object_is_taken_strictly(helm: Any, chart: str, admin: Admin, place: str) -> None:
    """Also the fields that Helm's own way of writing would let pass with a warning."""
    with helm_python.Chart.load(chart) as loaded:
        values = {"networkPolicy": {"enabled": True}}
        theirs = {"database": {"kind": "postgres", "postgres": {"secretName": "db"}}}
        texts = [
            text
            for given in (values, values | theirs, {"database": SQLITE})
            for text in loaded.render(given, name=RELEASE, namespace=place).values()
        ]
    refused = []
    plural = {"NetworkPolicy": "networkpolicies", "PriorityClass": "priorityclasses"}
    for text in texts:
        for each in yaml.safe_load_all(text) if "kind:" in text else ():
            if not each:
                continue
            version, kind = each["apiVersion"], each["kind"]
            within = f"namespaces/{each['metadata']['namespace']}/" if "namespace" in each["metadata"] else ""
            root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
            path = f"{root}/{within}{plural.get(kind, kind.lower() + 's')}"
            try:
                admin.create(f"{path}?dryRun=All&fieldValidation=Strict", each)
            except ApiRefusal as refusal:
                refused.append(f"{kind}: {refusal}")
    assert refused == []


# ---- what was released, run -----------------------------------------------------------------------------------------


def test_a_migration_that_fails_changes_nothing(helm: Any, chart: str, admin: Admin, place: str) -> None:
    """With a Postgres of one's own the Job comes first. This test plays its pod, which ends badly, then well."""
    theirs = {"database": {"kind": "postgres", "postgres": {"secretName": "db"}}}
    jobs = f"/apis/batch/v1/namespaces/{place}/jobs"
    for ended in ("Failed", "Complete"):
        with ThreadPoolExecutor(1) as hands:
            installing = hands.submit(helm.install, chart, RELEASE, theirs, namespace=place)
            wait_until(lambda: admin.get(jobs)["items"], "the migration's Job")
            assert made(admin, place) == [f"jobs/{NAME}-migration"]
            end_job(admin, f"{jobs}/{NAME}-migration", ended)
            if ended == "Failed":
                with pytest.raises(helm_python.HelmError, match="pre-install"):
                    installing.result(60)
                assert made(admin, place) == [f"jobs/{NAME}-migration"], "what failed can be looked at"
                helm.uninstall(RELEASE)
            else:
                installing.result(60)
    wait_until(lambda: f"jobs/{NAME}-migration" not in made(admin, place), "the Job's end")
    assert f"deployments/{NAME}-aggregator" in made(admin, place)


def end_job(admin: Admin, path: str, how: str) -> None:
    """What the Job controller writes when the pod has ended; it is asked for both conditions since 1.31."""

    def write_the_end() -> Any:
        # The controller wins the race for startTime often enough, and the API server takes no other after that.
        now = datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        started = admin.get(path).get("status", {}).get("startTime", now)
        before = {"Failed": "FailureTarget", "Complete": "SuccessCriteriaMet"}[how]
        conditions = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in (before, how)]
        status: dict[str, Any] = {"conditions": conditions, "startTime": started} | NOTHING_RUNS
        status |= {"completionTime": now, "succeeded": 1} if how == "Complete" else {"failed": 1}
        return admin.patch(f"{path}/status", {"status": status})

    wait_until(write_the_end, "the Job's status to be taken")


async def test_a_released_agent_delivers_to_the_released_aggregator(
    helm: Any, chart: str, plane: ControlPlane, admin: Admin, place: str, tmp_path: Path
) -> None:
    helm.install(chart, RELEASE, {"database": SQLITE}, namespace=place)
    # What the kubelet would make of the DaemonSet: a pod on a node, and the token it projects into it.
    template = admin.get(f"/apis/apps/v1/namespaces/{place}/daemonsets/{NAME}-agent")["spec"]["template"]
    spec = pod_spec(nodeName="node-2", serviceAccountName=template["spec"]["serviceAccountName"])
    admin.create(f"/api/v1/namespaces/{place}/pods", {"metadata": {"name": "agent"}, "spec": spec})
    [projected] = [v["projected"]["sources"][0] for v in template["spec"]["volumes"] if "projected" in v]
    asked = projected["serviceAccountToken"]
    token = plane.token(
        place,
        f"{NAME}-agent",
        audiences=[asked["audience"]],
        expirationSeconds=asked["expirationSeconds"],
        boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "agent"},
    )
    token_file = tmp_path / "token"
    token_file.write_text(token)
    env = {each["name"]: each.get("value", "") for each in template["spec"]["containers"][0]["env"]}
    with released_aggregator(plane, admin, place, tmp_path) as (told, log):
        security = TokenTls(ca_file=tmp_path / "ca.crt", token_file=token_file)
        for node, delivered in (("node-1", False), ("node-2", True)):
            spool = Spool(None, boot_id="boot", limits=SpoolLimits())
            spool.append(batch_of(flows(3)))
            stream = FlowLinkStream(
                spool=spool,
                config=StreamConfig(
                    target=told["WATTLE_INGEST_LISTEN"],
                    security=security,
                    cluster=env["WATTLE_CLUSTER"],
                    agent_id=node,
                    boot_id="boot",
                    version="test",
                    server_name=env["WATTLE_SERVER"].rpartition(":")[0],
                ),
                on_settings=lambda _settings: None,
                jitter=lambda most: min(most, 0.1),
            )
            running = asyncio.create_task(stream.run())
            try:
                if delivered:
                    await until(lambda spool=spool: spool.waiting_batches == 0)
                else:
                    await until(lambda: _counted(told, "wattle_ingest_refused_hellos_total"))
                    assert spool.waiting_batches == 1
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                spool.close()
        assert "Traceback" not in log.read_text()


def _counted(told: dict[str, str], metric: str) -> bool:
    with urlopen(f"http://{told['WATTLE_HTTP_LISTEN']}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return any(line.startswith(f"{metric}{{") and not line.endswith(" 0.0") for line in lines)
