"""List and watch: what each answer of an API server leads to, without a server and without waiting."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from aggregator.cluster.kinds import Watched
from aggregator.cluster.reflector import Reflector, State, Timing, key_of
from aggregator.cluster.transport import ApiError, items_of

PODS = Watched("Pod", "/api/v1/pods", needed=True)
Key = tuple[str, str, str]


def pod(name: str, version: int = 1) -> dict[str, Any]:
    return {"metadata": {"namespace": "n", "name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}}


def event(kind: str, raw: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": raw}).encode()


def page(*items: dict[str, Any], version: int = 10, token: str = "") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": str(version), "continue": token}, "items": list(items)}


class Table:
    """A sink that is a table."""

    def __init__(self) -> None:
        self.objects: dict[Key, dict[str, Any]] = {}

    def apply(self, kind: str, raw: dict[str, Any]) -> None:
        self.objects[key_of(raw)] = raw

    def remove(self, kind: str, raw: dict[str, Any]) -> None:
        self.objects.pop(key_of(raw), None)

    def known(self, kind: str) -> set[Key]:
        return set(self.objects)

    def same(self, kind: str, raw: dict[str, Any]) -> Key:
        return key_of(raw)

    def vanish(self, kind: str, keys: set[Key]) -> None:
        for key in keys:
            del self.objects[key]

    @property
    def names(self) -> list[str]:
        return sorted(key[1] for key in self.objects)


class Script:
    """An API server that answers by a script: dict = a page, list = the lines of a watch, an error = that error.
    `groups`: what it says of an API group, by path.
    """

    def __init__(self, *answers: Any, groups: dict[str, dict[str, Any]] | None = None) -> None:
        self._answers = list(answers)
        self._groups = groups or {}
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.reflector: Reflector | None = None

    def _next(self, query: Any) -> Any:
        assert self.reflector is not None
        self.asked.append(dict(query))
        answer = self._answers.pop(0)
        if not self._answers:
            self.reflector.stop()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def get(self, path: str) -> dict[str, Any]:
        if path not in self._groups:
            raise ApiError(f"GET {path}", 404, "the server could not find the requested resource")
        return self._groups[path]

    def each(self, path: str, query: Any, take: Any, *, read_seconds: float) -> dict[str, Any]:
        self.paths.append(path)
        return items_of(json.dumps(self._next(query)), take)

    @contextmanager
    def lines(self, path: str, query: Any, *, read_seconds: float) -> Iterator["Lines"]:
        yield Lines(self._next(query))

    @property
    def verbs(self) -> list[str]:
        return ["watch" if "watch" in query else "list" for query in self.asked]


class Lines:
    def __init__(self, lines: list[Any]) -> None:
        self._lines = lines

    def __iter__(self) -> Iterator[bytes]:
        for line in self._lines:
            if isinstance(line, Exception):
                raise line
            yield line

    def shut(self) -> None:
        pass


class Waits(list[float]):
    """What the reflector waited, without waiting."""


def play(
    *answers: Any,
    draw: float = 1.0,
    timing: Timing | None = None,
    watched: Watched = PODS,
    groups: dict[str, dict[str, Any]] | None = None,
) -> tuple[Table, Script, Waits, dict[str, int]]:
    """Run a reflector until the script is over. A last empty watch lets the one before it be heard to its end."""
    table, script, waits, counts = Table(), Script(*answers, [], groups=groups), Waits(), dict[str, int]()

    def count(_kind: str, reason: str) -> None:
        counts[reason] = counts.get(reason, 0) + 1

    reflector = Reflector(script, watched, table, timing=timing, count=count, draw=lambda: draw)  # type: ignore[arg-type]
    script.reflector = reflector
    reflector.pause = waits.append  # type: ignore[method-assign]
    reflector.run()
    counts["state"] = list(State).index(reflector.state)
    return table, script, waits, counts


def test_a_list_is_read_page_by_page_and_then_watched() -> None:
    table, script, _, _ = play(
        page(pod("a"), token="more"),
        page(pod("b"), version=7),
        [event("ADDED", pod("c", 8)), event("DELETED", pod("a", 9))],
    )
    assert table.names == ["b", "c"]
    assert script.verbs == ["list", "list", "watch", "watch"]
    assert script.asked[1]["continue"] == "more"
    assert script.asked[2]["resourceVersion"] == "7"
    assert script.asked[3]["resourceVersion"] == "9", "the next watch goes on where the last one ended"
    assert script.asked[2]["allowWatchBookmarks"] == "true"


def test_a_bookmark_moves_the_version_and_nothing_else() -> None:
    table, script, _, _ = play(page(pod("a")), [event("BOOKMARK", {"metadata": {"resourceVersion": "77"}})])
    assert table.names == ["a"]
    assert script.asked[-1]["resourceVersion"] == "77"


@pytest.mark.parametrize(
    "gone",
    [
        ApiError("watch", 410, "too old resource version"),
        [event("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version"})],
    ],
    ids=["status", "event"],
)
def test_gone_is_listed_anew_and_what_vanished_in_between_is_removed(gone: Any) -> None:
    table, script, _, counts = play(page(pod("a"), pod("b")), gone, page(pod("b"), pod("c")), [])
    assert table.names == ["b", "c"]
    assert script.verbs[:3] == ["list", "watch", "list"]
    assert counts["gone"] == 1


def test_a_page_token_that_expired_starts_the_list_again() -> None:
    table, _, _, _ = play(page(pod("a"), token="old"), ApiError("list", 410, "expired"), page(pod("b")), [])
    assert table.names == ["b"]


def test_an_error_event_that_is_not_gone_goes_on_from_the_same_version() -> None:
    _, script, waits, counts = play(
        page(pod("a"), version=5), [event("ERROR", {"code": 500, "message": "etcd is away"})], []
    )
    assert script.verbs == ["list", "watch", "watch", "watch"]
    assert script.asked[2]["resourceVersion"] == "5"
    assert counts["error-event"] == counts["http-500"] == 1
    assert waits


def test_silence_goes_on_from_the_same_version() -> None:
    _, script, _, counts = play(page(pod("a"), version=5), [ApiError("watch", 0, "timed out")], [])
    assert script.verbs[:3] == ["list", "watch", "watch"]
    assert counts["no-answer"] == 1


def test_a_torn_line_is_an_error_not_a_crash() -> None:
    table, script, _, _ = play(page(pod("a"), version=5), [b'{"type": "ADDED", "obj'], [event("ADDED", pod("b", 6))])
    assert table.names == ["a", "b"]
    assert script.asked[2]["resourceVersion"] == "5"


def test_waiting_doubles_up_to_a_limit_and_is_drawn_from_the_whole_of_it() -> None:
    errors = [ApiError("list", 500, "no")] * 10
    timing = Timing(first_wait_seconds=1, longest_wait_seconds=16)
    _, _, waits, _ = play(*errors, page(), [], timing=timing)
    assert waits[:10] == [2, 4, 8, 16, 16, 16, 16, 16, 16, 16]
    _, _, none, _ = play(*errors, page(), [], timing=timing, draw=0.0)
    assert set(none[:10]) == {0.0}


def test_what_the_server_asks_for_is_waited_for() -> None:
    busy = ApiError("list", 429, "too many requests", retry_after_seconds=42)
    _, _, waits, counts = play(busy, page(), [])
    assert waits[0] == 42
    assert counts["http-429"] == 1


def test_a_watch_that_ends_at_once_every_time_is_not_asked_in_a_loop() -> None:
    _, _, waits, _ = play(page(), [], [], [], [], timing=Timing(first_wait_seconds=1))
    assert waits[:4] == [2, 4, 8, 16]


def test_a_kind_that_is_not_served_is_emptied_and_looked_for_again_later() -> None:
    absent = ApiError("list", 404, "the server could not find the requested resource")
    table, script, waits, counts = play(page(pod("a")), absent, absent, page(pod("b")), [])
    assert table.names == ["b"]
    assert waits[0] == waits[1] == 300
    assert script.verbs == ["list", "watch", "list", "list", "watch", "watch"]
    assert counts["state"] == list(State).index(State.WATCHING)


def test_a_right_that_is_lacking_is_asked_for_ever_more_seldom() -> None:
    forbidden = ApiError("list", 403, "forbidden")
    _, _, waits, counts = play(*[forbidden] * 6, page(), [])
    assert waits[-3] > 100
    assert counts["forbidden"] == 6


ABSENT = ApiError("list", 404, "the server could not find the requested resource")
ROUTES = Watched("Route", "/apis/example.org/v1/routes", elsewhere=("/apis/example.org/v1beta1/routes",))


def test_a_kind_that_is_served_elsewhere_is_read_there() -> None:
    table, script, waits, _ = play(ABSENT, page(pod("a")), [], watched=ROUTES)
    assert table.names == ["a"]
    assert script.paths == ["/apis/example.org/v1/routes", "/apis/example.org/v1beta1/routes"]
    assert waits[0] == 0


def test_a_kind_that_moves_is_followed_and_what_did_not_move_is_gone() -> None:
    table, script, _, _ = play(page(pod("a"), pod("b")), ABSENT, page(pod("b")), [], watched=ROUTES)
    assert table.names == ["b"]
    assert script.paths == ["/apis/example.org/v1/routes", "/apis/example.org/v1beta1/routes"]


def test_a_kind_that_is_served_nowhere_is_looked_for_from_the_first_place_again() -> None:
    table, script, waits, _ = play(ABSENT, ABSENT, page(pod("a")), [], watched=ROUTES)
    assert table.names == ["a"]
    assert script.paths[2] == "/apis/example.org/v1/routes"
    assert waits[:2] == [0, 300]


@pytest.mark.parametrize(
    ("groups", "state"),
    [
        ({}, State.NOT_SERVED),
        ({"/apis/example.org/v1": {"resources": [{"name": "others"}]}}, State.NOT_SERVED),
        ({"/apis/example.org/v1": {"resources": [{"name": "routes"}]}}, State.FORBIDDEN),
    ],
    ids=["no group", "another kind", "there"],
)
def test_what_may_not_be_read_is_forbidden_only_where_it_is_there(groups: Any, state: State) -> None:
    """The API server says 403 before it says 404."""
    watched = Watched("Route", "/apis/example.org/v1/routes")
    script = Script(ApiError("list", 403, "forbidden"), groups=groups)
    reflector = Reflector(script, watched, Table())  # type: ignore[arg-type]
    script.reflector = reflector
    reflector.run()
    assert reflector.state is state


def test_a_kind_that_may_be_served_from_now_on_is_looked_for_at_once() -> None:
    script = Script(ABSENT, page(pod("a")), [])
    table = Table()
    reflector = Reflector(script, PODS, table, timing=Timing(absent_wait_seconds=3600))  # type: ignore[arg-type]
    script.reflector = reflector
    thread = threading.Thread(target=reflector.run, daemon=True)
    thread.start()
    while thread.is_alive():
        reflector.wake()
        thread.join(0.01)
    assert table.names == ["a"]


def test_stop_ends_it() -> None:
    script = Script(page(pod("a")), [])
    reflector = Reflector(script, PODS, Table())  # type: ignore[arg-type]
    script.reflector = reflector
    reflector.stop()
    reflector.run()
    assert script.asked == []


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("order", [("kind", "metadata", "items"), ("items", "kind", "metadata")])
def test_a_page_is_read_item_by_item_in_any_order_of_keys(indent: int | None, order: tuple[str, ...]) -> None:
    values = {"kind": "PodList", "metadata": {"continue": "t"}, "items": [{"a": 1}, {"b": [{}]}, {}]}
    found: list[Any] = []
    text = json.dumps({key: values[key] for key in order}, indent=indent)
    assert items_of(f" {text}\n", found.append) == {"continue": "t"}
    assert found == values["items"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"items"', '{"items": [{}', '{"items": [{]}', "null", "<html>"])
def test_a_torn_page_is_an_error(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        items_of(text, lambda _: None)


@pytest.mark.parametrize("text", ["{}", '{"items": []}', '{"items": null}'])
def test_an_empty_page_is_empty(text: str) -> None:
    assert items_of(text, pytest.fail) == {}
