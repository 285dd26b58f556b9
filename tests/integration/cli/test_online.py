"""`wattle` as a client of an aggregator that is served on a real socket."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.integration.cli.conftest import Run
from tests.integration.services.world import DB, Seen, World, link, record
from tests.integration.services.world import WEB as WEB_WORKLOAD

WATTLE = Path(sys.executable).with_name("wattle")
WEB = ("deploy/web", "-n", "shop")


def rows(run: Run, server: str, *more: str) -> list[dict[str, object]]:
    code, out, _ = run("--server", server, "links", *WEB, "-o", "json", *more)
    assert code == 0
    found: list[dict[str, object]] = json.loads(out)
    return found


def id_of(found: list[dict[str, object]], port: int) -> str:
    return next(str(row["id"]) for row in found if row["port"] == port)


def test_tables_have_every_workload_also_the_silent_one(run: Run, development: str) -> None:
    code, out, err = run("--server", development, "workloads", "-n", "shop")
    assert (code, err) == (0, "")
    lines = {line.split()[2]: line for line in out.splitlines()[1:]}
    assert set(lines) == {"web", "db", "old", "report", "idle"}
    assert "never" in lines["idle"]
    assert "\x1b" not in out
    _, wide, _ = run("--server", development, "links", *WEB, "-o", "wide")
    assert all(word in wide.splitlines()[0] for word in ("PROCESS", "VIA", "BYTES", "SEEN BY", "CLASS", "LABELS", "ID"))
    assert len(wide.splitlines()) == len(rows(run, development)) + 1, "no row is folded in a pipe"


def test_json_and_yaml_are_what_the_server_answered(run: Run, development: str) -> None:
    _, as_yaml, _ = run("--server", development, "links", *WEB, "-o", "yaml")
    assert yaml.safe_load(as_yaml) == rows(run, development)
    _, csv, _ = run("--server", development, "links", *WEB, "--csv")
    assert len(csv.splitlines()) == len(rows(run, development)) + 1


def test_every_page_is_fetched(run: Run, development: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = rows(run, development)
    monkeypatch.setattr("aggregator.cli.online.rest.PAGE", 3)
    assert rows(run, development) == everything


def test_the_proposal_is_yaml_on_standard_output_and_its_proof_beside_it(run: Run, development: str) -> None:
    code, out, err = run("--server", development, "policy", *WEB)
    assert code == 0
    assert [document["metadata"]["name"] for document in yaml.safe_load_all(out)] == ["wattle-web"]
    assert "proved by" in err
    assert run("--server", development, "policy", "-n", "shop", "--show", "simulation")[0] == 1, "a link would be cut"
    code, out, _ = run("--server", development, "policy", "-n", "shop", "--show", "plan")
    assert code == 0
    assert "1. apply" in out
    code, out, _ = run("--server", development, "policy", *WEB, "--show", "dry-run")
    assert code == 1
    assert "kubectl apply --dry-run=server" in out


def test_a_decision_changes_the_proposal_and_can_be_taken_back(run: Run, development: str) -> None:
    before = run("--server", development, "policy", *WEB)[1]
    old = id_of(rows(run, development), 9042)
    code, out, _ = run("--server", development, "decide", "exclude", *WEB, old, "--reason", "switched off")
    assert code == 0
    assert "switched off" in out
    assert "9042" not in run("--server", development, "policy", *WEB)[1]
    _, said, _ = run("--server", development, "decide", "list", "-o", "json")
    assert run("--server", development, "decide", "undo", json.loads(said)[0]["record"])[0] == 0
    assert run("--server", development, "policy", *WEB)[1] == before


def test_rows_are_chosen_by_words_after_a_question(run: Run, development: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    code, _, err = run("--server", development, "decide", "exclude", *WEB, "-m", "old 9042")
    assert code == 1
    assert "These 1 rows?" in err
    assert "9042" in run("--server", development, "policy", *WEB)[1]
    assert run("--server", development, "decide", "exclude", *WEB, "-m", "old 9042", "--yes")[0] == 0
    assert "9042" not in run("--server", development, "policy", *WEB)[1]
    code, _, err = run("--server", development, "decide", "exclude", *WEB, "-m", "no such words", "--yes")
    assert (code, err) == (2, "wattle: no row has the words 'no such words'\n")


def test_rules_cidrs_aliases_and_baselines(run: Run, development: str) -> None:
    def wattle(*words: str) -> str:
        code, out, err = run("--server", development, *words)
        assert code == 0, err
        return out

    assert "ingress: allow-namespace" in wattle(
        "decide", "rule", "deploy/web", "ingress", "allow-namespace", "-n", "shop"
    )
    assert "203.0.113.8/29, TCP 443" in wattle(
        "decide", "cidr", "deploy/web", "egress", "203.0.113.8/29@443", "-n", "shop"
    )
    assert "cidr: 203.0.113.8/29" in wattle("policy", *WEB).replace('"', "")
    assert "partner.example.org" in wattle("alias", "set", "partner", "203.0.113.10", "partner.example.org")
    assert "198.51.100.0/24" in wattle("alias", "set", "partner", "198.51.100.0/24", "--extend")
    assert wattle("alias", "list", "-o", "json").count("203.0.113.10") == 1
    assert "partner" not in wattle("alias", "remove", "partner")
    assert "frozen" in wattle("decide", "freeze", *WEB)
    assert "frozen" in wattle("workloads", *WEB)
    assert "frozen" not in wattle("decide", "freeze", *WEB, "--thaw").splitlines()[0]


def test_a_default_deny_is_said_and_taken_back(run: Run, development: str) -> None:
    code, out, err = run("--server", development, "decide", "default-deny", "egress", "-n", "shop", "-r", "strict")
    assert code == 0, err
    assert out.splitlines()[0] == "shop: denied by default: egress"
    assert "strict" in out
    _, out, _ = run("--server", development, "decide", "default-deny", "egress", "-n", "shop", "--remove")
    assert out.splitlines()[0] == "shop: denied by default: nothing"


def test_rows_are_followed_as_they_come(
    run: Run, development: str, shop: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([lambda: record(shop.store, [Seen(link=link(WEB_WORKLOAD, DB, 6000))])])

    def meanwhile(_seconds: float) -> None:
        step = next(looks, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr("aggregator.cli.online.look.time.sleep", meanwhile)
    before = rows(run, development)
    _, out, _ = run("--server", development, "links", *WEB, "--watch", "--output", "wide")
    first, _, then = out.partition("LABELS")[2].partition("LABELS")
    assert len(first.splitlines()) - 1 == len(before) + 1
    assert "TCP 6000" in then
    assert "TCP 5432" not in then, "what has not changed is not shown again"


def test_a_blocked_row_is_explained_with_the_smallest_change(run: Run, development: str) -> None:
    code, out, _ = run("--server", development, "links", *WEB, "--explain", id_of(rows(run, development), 5432))
    assert code == 0
    assert "allowed" in out
    code, out, _ = run("--server", development, "policies", "-n", "ledger", "-o", "wide")
    assert code == 0
    assert "vault-guard" in out


def test_the_map_and_the_agents(run: Run, development: str) -> None:
    code, out, _ = run("--server", development, "topology", "-n", "shop")
    assert code == 0
    assert "Never seen talking: shop/Deployment/idle." in out
    assert run("--server", development, "topology", *WEB, "--dot")[1].startswith("digraph")
    code, out, _ = run("--server", development, "agents")
    assert code == 0
    assert "node-1" in out


def test_a_folder_for_each_namespace_says_the_order(run: Run, development: str, tmp_path: Path) -> None:
    code, _, err = run("--server", development, "policy", "-A", "--to", tmp_path / "gitops")
    assert code == 0, err
    index = yaml.safe_load((tmp_path / "gitops" / "kustomization.yaml").read_text())
    assert index["resources"] == ["kube-system", "ledger", "shop"]
    for name in index["resources"]:
        listed = yaml.safe_load((tmp_path / "gitops" / name / "kustomization.yaml").read_text())["resources"]
        assert all((tmp_path / "gitops" / name / file).is_file() for file in listed)
    assert "apply `shop/wattle-web`" in (tmp_path / "gitops" / "ORDER.md").read_text()


def test_signing_needs_two_people(run: Run, guarded: str, tmp_path: Path) -> None:
    for name in ("editor", "admin"):
        (tmp_path / name).write_text(name)
    as_admin = ("--server", guarded, "--token-file", tmp_path / "admin")
    code, out, err = run(*as_admin, "policy", *WEB, "--submit", "--reason", "please")
    assert code == 0, err
    digest = json.loads(run(*as_admin, "policy", *WEB, "-o", "json")[1])["digest"]
    assert digest in out
    code, _, err = run(*as_admin, "policy", *WEB, "--approve", digest)
    assert code == 2
    assert "ask another person" in err


def test_a_login_keeps_names_and_no_token(run: Run, guarded: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("viewer")
    code, out, err = run("--server", guarded, "--token-file", tmp_path / "token", "login")
    assert code == 0, err
    assert out.startswith("viewer at the cluster default: sees 2 namespaces.")
    kept = (tmp_path / "config" / "wattle" / "login.yaml").read_text()
    assert yaml.safe_load(kept) == {"server": guarded, "token_file": str(tmp_path / "token")}
    code, out, _ = run("workloads")
    assert code == 0
    assert "ledger" not in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("links", "web", "-n", "shop"), "'web' is no workload: write KIND/NAME"),
        (("links", "deploy/nope", "-n", "shop"), "there is no Deployment nope in the namespace shop"),
        (("links", *WEB, "--span", "3weeks"), "'3weeks' is no span"),
        (("links", *WEB, "--sort", "colour"), "there is no column 'colour'"),
        (("--cluster", "elsewhere", "links", *WEB), "there is no such cluster here"),
        (("links", "deploy/web"), "name a namespace: -n NAMESPACE"),
        (("policy", *WEB, "--submit", "--show", "diff"), "ask one"),
        (("policy", "-A"), "needs --to DIRECTORY"),
        (("decide", "exclude", *WEB, "--resaon", "old"), "'--resaon' is no id of a row"),
        (("decide", "exclude", *WEB), "name rows by their ids, or by --matching WORDS"),
        (("decide", "cidr", "deploy/web", "egress", "203.0.113.8:443", "-n", "shop"), "does not appear to be an IPv4"),
        (("decide", "undo", "0" * 24), "there is no such record"),
        (("alias", "remove", "nobody"), "there is no alias nobody"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_2(
    run: Run, development: str, arguments: tuple[str, ...], sentence: str
) -> None:
    code, out, err = run("--server", development, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("wattle: ")
    assert sentence in err
    assert err.count("\n") == 1


def test_no_answer_no_token_and_no_right_are_sentences(run: Run, guarded: str, tmp_path: Path) -> None:
    code, _, err = run("--server", "http://127.0.0.1:9", "agents")
    assert code == 2
    assert err == "wattle: http://127.0.0.1:9 does not answer: [Errno 111] Connection refused\n"
    code, _, err = run("agents")
    assert code == 2
    assert "which aggregator? name one with --server URL" in err
    code, _, err = run("--server", guarded, "agents")
    assert code == 2
    assert "the server asks for a token, and there is no way to one" in err
    (tmp_path / "token").write_text("viewer")
    code, _, err = run("--server", guarded, "--token-file", tmp_path / "token", "agents")
    assert code == 2
    assert "viewer may not list agents.wattle" in err


def test_a_token_is_never_sent_without_tls_to_another_machine(
    run: Run, guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name resolves to the guarded server, so a token that was sent would be accepted."""
    import socket

    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *more, **named: resolve("127.0.0.1" if host == "far" else host, *more, **named),
    )
    (tmp_path / "token").write_text("admin")
    far = guarded.replace("127.0.0.1", "far")
    code, out, err = run("--server", far, "--token-file", tmp_path / "token", "agents")
    assert (code, out) == (2, "")
    assert "is not sent without TLS" in err


def test_the_shell_completes_workloads(development: str, tmp_path: Path) -> None:
    asked = {
        "WATTLE_SERVER": development,
        "_WATTLE_COMPLETE": "complete_bash",
        "COMP_WORDS": "wattle links -n shop Deployment/w",
        "COMP_CWORD": "4",
        "HOME": str(tmp_path),
    }
    said = subprocess.run([WATTLE], env=asked, capture_output=True, text=True, check=False, timeout=60)
    assert said.stdout.split() == ["Deployment/web"], said.stderr
    silent = {**asked, "WATTLE_SERVER": "http://127.0.0.1:9"}
    said = subprocess.run([WATTLE], env=silent, capture_output=True, text=True, check=False, timeout=60)
    assert (said.stdout.strip(), said.stderr) == ("", ""), "a shell shows no error"


def test_kubectl_finds_it_as_a_plugin() -> None:
    plugin = WATTLE.with_name("kubectl-wattle")
    said = subprocess.run([plugin, "--version"], capture_output=True, text=True, check=False, timeout=60)
    assert said.stdout.startswith("wattle "), said.stderr
