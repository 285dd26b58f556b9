"""`python -m tests.e2e.kube` brings the cluster up and keeps it until standard input closes; `... sweep` clears it."""

import sys

from tests.cluster.kubebinaries import NODE_PROGRAMS, PROGRAMS, binaries, enforcer
from tests.e2e.kube.cluster import Cluster
from tests.e2e.kube.images import application_images, wattle_images
from tests.e2e.kube.machine import sweep


def main() -> None:
    if sys.argv[1:] == ["sweep"]:
        sweep()
        return
    images = [application_images(), *wattle_images()]
    cluster = Cluster(programs=binaries(PROGRAMS + NODE_PROGRAMS), images=images)
    cluster.enforcer = enforcer()
    cluster.reserve()
    try:
        cluster.up()
        print(
            f"up: {cluster.pki.kubeconfig('admin')}, in the network of process {next(iter(cluster.nodes.values())).pid}"
        )
        sys.stdin.read()
    finally:
        cluster.down()


if __name__ == "__main__":
    main()
