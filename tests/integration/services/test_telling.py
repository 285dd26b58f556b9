"""Events go to a real HTTP server: signed, once, again when they were not taken; to Alertmanager while they hold."""

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from aggregator.alerting.sending import NotTakenError, Outlet
from aggregator.model.event import Ended
from aggregator.services.keeping import telling
from aggregator.services.keeping.telling import Telling
from aggregator.store.events import EventLog
from aggregator.store.migrate import migrate
from aggregator.store.store import Store, open_store
from tests.integration.services.world import CLUSTER, DB, NOW, OLD, WEB, link, new_link_event


class Receiver:
    """What a webhook hears; answers with `status`."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 200
        receiver = self

        class Answering(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.heard.append((self.path, dict(self.headers), body))
                self.send_response(receiver.status)
                if receiver.status == 307:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def bodies(self) -> list[object]:
        return [json.loads(body) for _, _, body in self.heard]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path / 'wattle.db'}"
    migrate(url)
    opened = open_store(url, clock=lambda: NOW)
    yield opened
    opened.close()


@pytest.fixture
def log(store: Store) -> EventLog:
    return EventLog(store.engine)


LATER = NOW + timedelta(seconds=30)


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def step(told: Telling, at: datetime = LATER) -> None:
    told.step(at)


def test_each_event_is_told_once_and_signed(receiver: Receiver, log: EventLog, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("swordfish\n")
    event = new_link_event(link(WEB, DB, 6000))
    log.note(CLUSTER, [event])
    for _ in range(2):  # a restart in between
        told = Telling(log, CLUSTER, webhook=Outlet(receiver.url, secret_file=secret))
        step(told)
        step(told)
    ((_, headers, body),) = receiver.heard
    assert headers["X-Wattle-Signature"] == "sha256=" + hmac.new(b"swordfish", body, hashlib.sha256).hexdigest()
    said = json.loads(body)
    assert (said["version"], said["cluster"]) == ("1", CLUSTER)
    (only,) = said["events"]
    assert (only["id"], only["kind"], only["severity"]) == (str(event.event_id), "new-link", "warning")
    assert only["link"]["dst"] == "shop/StatefulSet/db"


def test_what_was_not_taken_is_sent_again_later_and_counted(receiver: Receiver, log: EventLog) -> None:
    log.note(CLUSTER, [new_link_event(link(WEB, DB, 6000))])
    told = Telling(log, CLUSTER, webhook=Outlet(receiver.url))
    before = counted("wattle_alerts_retried_total", to="webhook", reason="http-503")
    receiver.status = 503
    with pytest.raises(NotTakenError, match="503"):
        step(told)
    step(told, LATER + timedelta(seconds=1))  # too early: not tried
    assert len(receiver.heard) == 1
    assert counted("wattle_alerts_retried_total", to="webhook", reason="http-503") == before + 1
    receiver.status = 204
    step(told, LATER + timedelta(seconds=6))
    step(told, LATER + timedelta(minutes=6))
    assert len(receiver.heard) == 2


def test_nobody_there_and_a_redirect_are_no_delivery(receiver: Receiver, log: EventLog) -> None:
    log.note(CLUSTER, [new_link_event(link(WEB, DB, 6000))])
    receiver.status = 307
    with pytest.raises(NotTakenError, match="307"):
        step(Telling(log, CLUSTER, webhook=Outlet(receiver.url)))
    assert [path for path, _, _ in receiver.heard] == ["/"]
    with pytest.raises(NotTakenError, match="no answer") as refused:
        step(Telling(log, CLUSTER, webhook=Outlet("http://127.0.0.1:9/secret-path")))
    assert "secret-path" not in str(refused.value)
    assert log.untold(CLUSTER, limit=9)[1] == 1


def test_what_waits_is_bounded(receiver: Receiver, log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "MOST_WAITING", 3)
    before = counted("wattle_alerts_given_up_total", to="webhook", reason="queue-full")
    log.note(CLUSTER, [new_link_event(link(WEB, DB, port)) for port in range(6000, 6005)])
    step(Telling(log, CLUSTER, webhook=Outlet(receiver.url)))
    step(Telling(log, CLUSTER, webhook=Outlet(receiver.url)))
    told = [event for body in receiver.bodies() for event in body["events"]]  # type: ignore[index]
    assert len(told) == 3
    assert counted("wattle_alerts_given_up_total", to="webhook", reason="queue-full") == before + 2


def test_a_webhook_set_up_later_is_not_told_of_the_past(receiver: Receiver, log: EventLog) -> None:
    log.note(CLUSTER, [new_link_event(link(WEB, DB, 6000))])
    step(Telling(log, CLUSTER))
    log.note(CLUSTER, [new_link_event(link(WEB, OLD, 6000))])
    step(Telling(log, CLUSTER, webhook=Outlet(receiver.url)))
    (body,) = receiver.bodies()
    assert [event["link"]["dst"] for event in body["events"]] == ["shop/StatefulSet/old"]  # type: ignore[index]


def test_alertmanager_hears_while_it_holds_and_when_it_ended(receiver: Receiver, log: EventLog, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("abc")
    event = new_link_event(link(WEB, DB, 6000))
    log.note(CLUSTER, [event])
    outlet = Outlet(f"{receiver.url}/api/v2/alerts", token_file=token)
    told = Telling(log, CLUSTER, alertmanager=outlet)
    step(told)
    step(told, LATER + timedelta(seconds=10))
    log.end(CLUSTER, [event.event_id], Ended.ACCEPTED, at=LATER + timedelta(seconds=20))
    step(told, LATER + timedelta(seconds=70))
    first, second = receiver.bodies()
    assert receiver.heard[0][0] == "/api/v2/alerts"
    assert receiver.heard[0][1]["Authorization"] == "Bearer abc"
    assert first[0]["labels"] == second[0]["labels"]  # type: ignore[index]
    assert first[0]["labels"]["alertname"] == "WattleNewLink"  # type: ignore[index]
    assert first[0]["endsAt"] == (LATER + timedelta(minutes=5)).isoformat()  # type: ignore[index]
    assert second[0]["endsAt"] == (LATER + timedelta(seconds=20)).isoformat()  # type: ignore[index]
