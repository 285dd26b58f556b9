"""A TCP relay in front of the API server that can fall silent or slam the door: what middleboxes do to watches."""

import selectors
import socket
import threading
from enum import Enum


class Mood(Enum):
    PASS = "pass"
    SILENT = "silent"  # accepts, and swallows what comes from the server
    SLAM = "slam"  # closes every connection


class Relay:
    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.mood = Mood.PASS
        self.accepted = 0
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._from_server: set[socket.socket] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._stop.is_set():
                for key, _ in selector.select(0.05):
                    one = key.fileobj
                    assert isinstance(one, socket.socket)
                    if one is self._listener:
                        self._accept(selector)
                    elif one in self._pairs:
                        self._carry(selector, one)
                if self.mood is Mood.SLAM:
                    for one in list(self._pairs):
                        self._drop(selector, one)
            for one in list(self._pairs):
                self._drop(selector, one)
            self._listener.close()

    def _accept(self, selector: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        self.accepted += 1
        try:
            server = socket.create_connection(self._target, timeout=5)
        except OSError:
            client.close()
            return
        self._pairs[client], self._pairs[server] = server, client
        self._from_server.add(server)
        selector.register(client, selectors.EVENT_READ)
        selector.register(server, selectors.EVENT_READ)

    def _carry(self, selector: selectors.BaseSelector, one: socket.socket) -> None:
        try:
            data = one.recv(65536)
            if data and not (self.mood is Mood.SILENT and one in self._from_server):
                self._pairs[one].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(selector, one)

    def _drop(self, selector: selectors.BaseSelector, one: socket.socket) -> None:
        other = self._pairs.pop(one, None)
        if other is None:
            return
        self._pairs.pop(other, None)
        for end in (one, other):
            self._from_server.discard(end)
            selector.unregister(end)
            end.close()
