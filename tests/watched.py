"""The shop of the demo, watched: real pods, real traffic, a real agent by gRPC, an aggregator as a process of its own.

Beside the shop a namespace whose collector calls it and is called by nobody. Needs root, for the lab and the agent.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aggregator.cluster.manifests import ManifestSource
from aggregator.model.networkpolicy import NetworkPolicy
from aggregator.model.protocol import Protocol
from aggregator.model.verdict import Verdict
from aggregator.policy.evaluation.endpoints import pod_endpoint
from aggregator.policy.evaluation.evaluate import evaluate
from aggregator.policy.evaluation.live import connect
from lab.client import LabHandle, running
from lab.demo import DEADLINE_SECONDS, links_are_steady, traffic_came_round, until
from lab.parts import Part, as_root, python
from lab.review import Review
from tests.database import free_port

SHOP = Path("lab/shop.yaml")
RUN = """\
    audit/Deployment/collector:
      containers:
        collector: {process: collector, calls: ["http://javaapp.example-java-app/"]}
    audit/Deployment/neighbour:
      containers:
        neighbour: {process: neighbour, listen: ["http:8080"]}
"""
DEPLOYMENT = """\
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: audit, labels: {{app: {name}}}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers: [{{name: {name}, image: "registry.example/{name}:1"}}]
"""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A lab that has been watched until nothing new came."""

    lab: LabHandle
    address: str

    def reaches(
        self,
        policies: Sequence[NetworkPolicy],
        src: str,
        dst: str,
        port: int,
        protocol: Protocol = Protocol.TCP,
    ) -> Verdict:
        """Between pods of two workloads, "namespace/name", in the cluster as it is, under these policies alone."""
        source = ManifestSource(self.lab.objects_dir, cluster="default")
        source.load()
        cluster = source.snapshot
        pods = {f"{pod.namespace}/{pod.workload.name}": pod for pod in cluster.pods if not pod.ended}
        return evaluate(
            policies, cluster, connect(pod_endpoint(pods[src]), pod_endpoint(pods[dst]), protocol, port)
        ).verdict


def scenario(path: Path) -> Path:
    text = re.sub(r"  truth:\n(    - .*\n)+", "", SHOP.read_text())  # the demo's own tests hold it to that
    text = text.replace("  name: shop\n", "  name: samples\n", 1).replace("  world:\n", f"{RUN}  world:\n", 1)
    head, first, objects = text.partition("---\n")
    more = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: audit, labels: {team: audit}}\n"
    more += "".join(DEPLOYMENT.format(name=name) for name in ("collector", "neighbour"))
    path.write_text(f"{head}{first}{objects.rstrip()}\n{more}")
    return path


@contextlib.contextmanager
def watching(folder: Path) -> Iterator[Watched]:
    """For as long as the block lasts; `folder` gets the scenario, the database and the logs."""
    assert os.geteuid() == 0, "the lab needs root: the tier's own make target runs as root"
    assert shutil.which("nft"), "the lab needs nft: `make setup` installs it"
    http, ingest, query, health = (f"127.0.0.1:{free_port()}" for _ in range(4))
    with running(scenario(folder / "watched.yaml")) as lab, contextlib.ExitStack() as stack:
        agent = Part(
            "agent",
            as_root(python("lab.tether", "--", *_agent(lab, ingest, health))),
            log=folder / "agent.log",
        )
        stack.callback(agent.stop)
        aggregator = Part(
            "aggregator",
            python("lab.tether", "--", *python("aggregator")),
            log=folder / "aggregator.log",
            environment={
                "WATTLE_DEVELOPMENT": "true",
                "WATTLE_DATABASE_URL": f"sqlite:///{folder / 'wattle.db'}",
                "WATTLE_MANIFESTS": str(lab.objects_dir),
                "WATTLE_HTTP_LISTEN": http,
                "WATTLE_INGEST_LISTEN": ingest,
                "WATTLE_QUERY_LISTEN": query,
            },
        )
        stack.callback(aggregator.stop)
        parts = (agent, aggregator)
        review = Review(f"http://{http}/api/v1")
        until("the agent delivered nothing", parts, DEADLINE_SECONDS, review.agent_reports)
        until("the traffic did not come round", parts, DEADLINE_SECONDS, traffic_came_round(lab))
        for namespace in ("example-java-app", "audit"):
            until("the links kept changing", parts, DEADLINE_SECONDS, links_are_steady(review, namespace))
        yield Watched(lab=lab, address=f"http://{http}")


def _agent(lab: LabHandle, ingest: str, health: str) -> list[str]:
    return python(
        "agent",
        "--plaintext",
        *("--node", next(iter(lab.nodes))),
        *("--kubelet-cgroup", f"/{lab.cgroup_roots[0].name}"),
        *("--pod-logs", str(lab.pod_logs_dir)),
        *("--pin-directory", str(lab.state / "pins")),
        *("--server", ingest),
        *("--http-listen", health),
        *("--drain-interval-seconds", "1"),
    )
