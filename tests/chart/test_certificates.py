"""Where the certificate of ingest comes from, and that agents accept it."""

import base64
import ssl
import time
from pathlib import Path

import pytest

from tests.chart.rendering import environment_of, kinds, named, pod_of, render


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> None:
    """In memory. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=host)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [ours, theirs, ours, theirs]
    for side in waiting:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert ours.version() is not None


def contexts(folder: Path, **values: object) -> tuple[ssl.SSLContext, ssl.SSLContext, str]:
    objects = render(dict(values))
    for name, text in named(objects, "Secret", "wattle-ingest-tls")["data"].items():
        (folder / name).write_bytes(base64.b64decode(text))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    client = ssl.create_default_context(cafile=folder / "ca.crt")
    host, _, _ = environment_of(objects, "agent")["WATTLE_SERVER"].rpartition(":")
    return client, server, host


def test_the_self_made_one_is_good_for_the_address_agents_are_told(tmp_path: Path) -> None:
    client, server, host = contexts(tmp_path)
    shake_hands(client, server, host)
    shake_hands(client, server, host.replace("ingest", "query"))


def test_the_authoritys_key_reaches_no_pod() -> None:
    objects = render()
    authority = named(objects, "Secret", "wattle-authority")["data"]
    assert authority["tls.crt"] == named(objects, "Secret", "wattle-ingest-tls")["data"]["ca.crt"]
    mounted = [
        v["secret"] for p in ("agent", "aggregator") for v in pod_of(objects, p)["spec"]["volumes"] if "secret" in v
    ]
    assert {each["secretName"] for each in mounted} == {"wattle-ingest-tls"}


def test_it_is_renewed_when_a_third_of_its_time_is_left() -> None:
    made = named(render({"tls": {"days": 30}}), "Secret", "wattle-ingest-tls")["metadata"]["annotations"]
    assert abs(int(made["wattle/renew-after"]) - time.time() - 20 * 86400) < 300


def test_it_is_good_for_no_other(tmp_path: Path) -> None:
    client, server, _ = contexts(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(client, server, "wattle-ingest.elsewhere.svc")


def test_another_release_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    client, _, host = contexts(tmp_path / "a")
    _, server, _ = contexts(tmp_path / "b")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(client, server, host)


def test_cert_manager_makes_it_from_an_authority_of_the_charts_own() -> None:
    objects = render({"tls": {"mode": "cert-manager"}})
    assert "Secret/wattle-ingest-tls" not in kinds(objects)
    leaf = named(objects, "Certificate", "wattle-ingest-tls")["spec"]
    assert leaf["dnsNames"] == [
        f"wattle-{door}.wattle.svc{domain}" for door in ("ingest", "query") for domain in ("", ".cluster.local")
    ]
    assert leaf["secretName"] == "wattle-ingest-tls"
    assert leaf["issuerRef"]["name"] == "wattle-authority"
    authority = named(objects, "Issuer", "wattle-authority")["spec"]["ca"]["secretName"]
    assert named(objects, "Certificate", "wattle-authority")["spec"]["secretName"] == authority
    assert named(objects, "Certificate", "wattle-authority")["spec"]["isCA"] is True
    assert named(objects, "Issuer", "wattle-root")["spec"] == {"selfSigned": {}}


def test_cert_manager_takes_an_issuer_that_is_there() -> None:
    manager = {"issuerName": "internal", "issuerKind": "ClusterIssuer", "duration": "24h"}
    objects = render({"tls": {"mode": "cert-manager", "certManager": manager}})
    leaf = named(objects, "Certificate", "wattle-ingest-tls")["spec"]
    assert leaf["issuerRef"] == {"name": "internal", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    assert leaf["duration"] == "24h"
    assert not any(kind.startswith("Issuer") for kind in kinds(objects))


def test_a_secret_that_is_there() -> None:
    objects = render({"tls": {"mode": "secret", "secretName": "mine"}})
    assert not {"Secret/wattle-ingest-tls", "Secret/wattle-authority"} & set(kinds(objects))
    assert not any(kind.startswith("Certificate") for kind in kinds(objects))
    for program in ("agent", "aggregator"):
        [volume] = [v for v in pod_of(objects, program)["spec"]["volumes"] if v["name"] == "tls"]
        assert volume["secret"]["secretName"] == "mine"
