"""The cluster's DNS: dnsmasq, told from the API server's Services and EndpointSlices. Standard library only.

Runs as the pod's first process. Names: <service>.<namespace>.svc.<domain>, and for pods with a host name of their own
(StatefulSets) <pod>.<service>.<namespace>.svc.<domain>. Everything else does not exist.
"""

import json
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API = "https://10.96.0.1"
DOMAIN = "cluster.local"
HOSTS = Path("/tmp/hosts")
READY = Path("/tmp/ready")
LOOK_SECONDS = 0.5


def ask(path: str) -> list:
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    request = urllib.request.Request(API + path, headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"})
    with urllib.request.urlopen(request, context=context, timeout=10) as answer:
        return json.load(answer)["items"]


def names() -> str:
    """dnsmasq's extra hosts file."""
    services = ask("/api/v1/services")
    lines = set()
    headless = set()
    for service in services:
        where = (service["metadata"]["namespace"], service["metadata"]["name"])
        addresses = service["spec"].get("clusterIPs", [])
        if addresses == ["None"]:
            headless.add(where)
            continue
        lines |= {f"{address} {where[1]}.{where[0]}.svc.{DOMAIN}" for address in addresses}
    for piece in ask("/apis/discovery.k8s.io/v1/endpointslices"):
        labels = piece["metadata"].get("labels", {})
        where = (piece["metadata"]["namespace"], labels.get("kubernetes.io/service-name", ""))
        if where not in headless:
            continue
        for endpoint in piece.get("endpoints") or []:
            if not endpoint.get("conditions", {}).get("ready", True):
                continue
            for address in endpoint["addresses"]:
                lines.add(f"{address} {where[1]}.{where[0]}.svc.{DOMAIN}")
                if endpoint.get("hostname"):
                    lines.add(f"{address} {endpoint['hostname']}.{where[1]}.{where[0]}.svc.{DOMAIN}")
    return "".join(f"{line}\n" for line in sorted(lines))


def main() -> int:
    HOSTS.write_text("")
    command = ["dnsmasq", "--keep-in-foreground", "--user=root", "--no-resolv", "--no-hosts", f"--addn-hosts={HOSTS}"]
    command += [f"--local=/{DOMAIN}/", "--local-ttl=1", "--cache-size=0", "--log-facility=-", "--pid-file="]
    dnsmasq = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    told = ""
    while dnsmasq.poll() is None:
        try:
            found = names()
        except OSError as error:  # the API server may be away; what was known stays
            print(f"{type(error).__name__}: {error}", flush=True)
        else:
            if found != told:
                HOSTS.write_text(found)
                dnsmasq.send_signal(signal.SIGHUP)
                told = found
            READY.touch()
        time.sleep(LOOK_SECONDS)
    return 1


if __name__ == "__main__":
    sys.exit(main())
