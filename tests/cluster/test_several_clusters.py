"""Two real API servers behind one aggregator: the same addresses in both, and nothing of one is ever the other's."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from agent.spool import Spool, SpoolLimits
from agent.stream import FlowLinkStream, StreamConfig, TokenTls
from tests.certificates import Authority
from tests.cluster.conftest import a_cluster, create_namespace
from tests.cluster.controlplane import Admin, ControlPlane, end, free_port, random_name, wait_until
from tests.cluster.kubelet import pod_spec, stamp
from tests.demo import ROOT
from tests.flowlink import Flow, batch_of, until

CLIENT_IP, SERVER_IP = "10.244.1.5", "10.244.1.6"
AGENT = "wattle/wattle-agent"


@dataclass(frozen=True, kw_only=True)
class Town:
    """One cluster as this test uses it."""

    name: str
    plane: ControlPlane
    namespace: str
    client: str  # of these names there is one in each cluster, at the same address
    client_uid: str
    server: str
    agent_token: str
    person_token: str


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory, plane: ControlPlane) -> Iterator[ControlPlane]:
    del plane  # says whether there is anything to run
    with a_cluster(tmp_path_factory.mktemp("second")) as found:
        yield found


def run_pod(admin: Admin, namespace: str, name: str, ip: str, **spec: Any) -> str:
    """A pod that has its address; its UID."""
    pods = f"/api/v1/namespaces/{namespace}/pods"
    made = admin.create(pods, {"metadata": {"name": name}, "spec": pod_spec(nodeName="node-1", **spec)})
    status = {"phase": "Running", "startTime": stamp(), "podIP": ip, "podIPs": [{"ip": ip}]}
    admin.patch(f"{pods}/{name}/status", {"status": status})
    uid: str = made["metadata"]["uid"]
    return uid


def town(name: str, plane: ControlPlane) -> Town:
    admin, namespace, agent = plane.admin, random_name("shop"), random_name("agent")
    create_namespace(admin, namespace)
    accounts = "/api/v1/namespaces/wattle/serviceaccounts"
    known = {account["metadata"]["name"] for account in admin.get(accounts)["items"]}
    for account in {"wattle-agent", "reader"} - known:
        admin.create(accounts, {"metadata": {"name": account}})
    if "reader" not in known:
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        rules = [{"apiGroups": ["wattle"], "resources": ["*"], "verbs": ["*"]}]
        admin.create(f"{rbac}/clusterroles", {"metadata": {"name": "wattle-all"}, "rules": rules})
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "wattle-all"}
        subject = {"kind": "ServiceAccount", "name": "reader", "namespace": "wattle"}
        admin.create(
            f"{rbac}/clusterrolebindings",
            {"metadata": {"name": "wattle-all"}, "roleRef": role, "subjects": [subject]},
        )
    admin.create(
        "/api/v1/namespaces/wattle/pods",
        {"metadata": {"name": agent}, "spec": pod_spec(nodeName="node-1", serviceAccountName="wattle-agent")},
    )
    bound = {"kind": "Pod", "apiVersion": "v1", "name": agent}
    return Town(
        name=name,
        plane=plane,
        namespace=namespace,
        client=f"client-{name}",
        client_uid=run_pod(admin, namespace, f"client-{name}", CLIENT_IP),
        server=f"server-{name}",
        agent_token=plane.token("wattle", "wattle-agent", audiences=["wattle"], boundObjectRef=bound),
        person_token=plane.token("wattle", "reader", audiences=["wattle"]),
    )


@contextmanager
def aggregator(home: Town, other: Town, folder: Path) -> Iterator[tuple[str, str, Path]]:
    """The program; (address of REST, address of ingest, the authority's certificate)."""
    authority = Authority(folder)
    certificate, key = authority.issue("server", "DNS:localhost")
    (folder / "kubeconfigs").mkdir()
    for one, path in ((home, folder / "home"), (other, folder / "kubeconfigs" / other.name)):
        token = one.plane.token("wattle", "wattle-aggregator", expirationSeconds=3600)
        path.write_text(json.dumps(one.plane.kubeconfig({"token": token})))
    http, ingest, query = (f"127.0.0.1:{free_port()}" for _ in range(3))
    told = {
        "CLUSTER": home.name,
        "SOURCE": "kubernetes",
        "KUBECONFIG": str(folder / "home"),
        "KUBECONFIGS": str(folder / "kubeconfigs"),
        "DATABASE_URL": f"sqlite:///{folder / 'wattle.db'}",
        "HTTP_LISTEN": http,
        "INGEST_LISTEN": ingest,
        "QUERY_LISTEN": query,
        "TLS_CERTIFICATE_FILE": str(certificate),
        "TLS_KEY_FILE": str(key),
        "AGENT_SERVICE_ACCOUNT": AGENT,
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WATTLE_")}
    environment |= {f"WATTLE_{name}": value for name, value in told.items()}
    log = folder / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen([sys.executable, "-m", "aggregator"], cwd=ROOT, env=environment, stderr=sink)
    try:
        for one in (home, other):

            def fresh(one: Town = one) -> bool:
                assert process.poll() is None, log.read_text()
                return ask(http, one, "status")["view_stale"] is False

            wait_until(fresh, f"the view of {one.name}", seconds=60)
        yield http, ingest, authority.ca_file
        assert "Traceback" not in log.read_text()
    finally:
        end(process)


def ask(http: str, about: Town, what: str, *, token: str = "") -> Any:
    mark = "&" if "?" in what else "?"
    headers = {"Authorization": f"Bearer {token or about.person_token}"}
    request = Request(f"http://{http}/api/v1/{what}{mark}cluster={about.name}", headers=headers)
    with urlopen(request, timeout=10) as answer:
        return json.load(answer)


@asynccontextmanager
async def agent(ingest: str, ca_file: Path, token_file: Path, cluster: str) -> Any:
    spool = Spool(None, boot_id="boot", limits=SpoolLimits())
    config = StreamConfig(
        target=ingest,
        security=TokenTls(ca_file=ca_file, token_file=token_file),
        cluster=cluster,
        agent_id="node-1",
        boot_id="boot",
        version="test",
        server_name="localhost",
    )
    stream = FlowLinkStream(
        spool=spool, config=config, on_settings=lambda _settings: None, jitter=lambda most: min(most, 0.1)
    )
    running = asyncio.create_task(stream.run())
    try:
        yield spool, stream
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        spool.close()


async def test_two_agents_with_the_same_addresses_are_never_mixed(
    plane: ControlPlane, second: ControlPlane, tmp_path: Path
) -> None:
    east, west = town("east", plane), town("west", second)
    for one in (east, west):
        run_pod(one.plane.admin, one.namespace, one.server, SERVER_IP)
        (tmp_path / one.name).write_text(one.agent_token)
    with aggregator(east, west, tmp_path) as (http, ingest, ca_file):
        for one in (east, west):
            async with agent(ingest, ca_file, tmp_path / one.name, one.name) as (spool, _):
                flow = Flow(pod_uid=one.client_uid, remote=SERVER_IP, port=8080, count=3)
                # Of the last second: one of five seconds ago may be older than the pods, and is then nobody's.
                spool.append(batch_of([flow], seconds=1))
                await until(lambda spool=spool: spool.waiting_batches == 0)
        for one, other in ((east, west), (west, east)):

            def rows(one: Town = one) -> Any:
                where = f"namespaces/{one.namespace}/links"
                return [r for r in ask(http, one, where)["items"] if r["peer"]["name"] != SERVER_IP]

            found = await asyncio.to_thread(wait_until, rows, f"the link of {one.name}", 90)
            assert {(r["workload"]["name"], r["peer"]["name"], r["port"]) for r in found} == {
                (one.client, one.server, 8080)
            }
            text = json.dumps(ask(http, one, "workloads")) + json.dumps(found)
            assert other.client not in text
            assert other.namespace not in text
            assert [a["name"] for a in ask(http, one, "agents")] == ["node-1"]
            with pytest.raises(HTTPError, match="401"):  # a person of the other cluster is nobody here
                ask(http, one, "workloads", token=other.person_token)


async def test_a_token_of_one_cluster_speaks_for_no_node_of_another(
    plane: ControlPlane, second: ControlPlane, tmp_path: Path
) -> None:
    """The nodes have the same names; the credential decides."""
    east, west = town("east", plane), town("west", second)
    (tmp_path / "east").write_text(east.agent_token)
    with aggregator(east, west, tmp_path) as (http, ingest, ca_file):
        async with agent(ingest, ca_file, tmp_path / "east", "west") as (spool, stream):
            spool.append(batch_of([Flow(pod_uid=west.client_uid, remote=SERVER_IP)]))
            await until(lambda: _refused(http, "credential"))
            assert not stream.connected
            assert spool.waiting_batches == 1
        assert ask(http, west, "agents") == []
        assert _reviewed(http, "west", "not-authenticated"), "west was asked"
        assert not _reviewed(http, "east", "authenticated"), "and east was not: the call did not name it"


def _metrics(http: str) -> list[str]:
    with urlopen(f"http://{http}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
    return text.splitlines()


def _refused(http: str, reason: str) -> bool:
    return any(
        line.startswith(f'wattle_ingest_refused_hellos_total{{reason="{reason}"}}') and not line.endswith(" 0.0")
        for line in _metrics(http)
    )


def _reviewed(http: str, cluster: str, outcome: str) -> bool:
    return any(
        line.startswith("wattle_cluster_token_reviews_total")
        and f'cluster="{cluster}"' in line
        and f'outcome="{outcome}"' in line
        for line in _metrics(http)
    )
