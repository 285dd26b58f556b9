"""As much of an API server as `wattle` asks on its way in: a Service, its pods, a token, a forwarded port.

The forwarding is the real protocol: a websocket, channel 0 the data and channel 1 the errors of the first port.
"""

import base64
import contextlib
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455
CLUSTER_TOKEN = "the-cluster-token"
WATTLE_TOKEN = "viewer"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    objects: Mapping[str, Any]
    asked: list[tuple[str, str, Any]]  # method, path, body


class _Asked(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def state(self) -> _Server:
        return cast("_Server", self.server)

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        self.state.asked.append(("GET", self.path, None))
        if self.headers["Authorization"] != f"Bearer {CLUSTER_TOKEN}" and not self.headers["Authorization"]:
            self._answer(401, {"message": "Unauthorized"})
        elif path.path.endswith("/portforward"):
            self._forward(int(parse_qs(path.query)["ports"][0]))
        elif path.path in self.state.objects:
            self._answer(200, self.state.objects[path.path])
        else:
            self._answer(404, {"message": "not found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.state.asked.append(("POST", self.path, body))
        self._answer(*self.state.objects.get(self.path, (404, {"message": "not found"})))

    def _answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _forward(self, port: int) -> None:
        accept = base64.b64encode(hashlib.sha1((self.headers["Sec-WebSocket-Key"] + MAGIC).encode()).digest())
        self.send_response(101)
        for name, value in (
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept.decode()),
            ("Sec-WebSocket-Protocol", self.headers["Sec-WebSocket-Protocol"]),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)) as pod:
            for channel in (0, 1):
                self._frame(bytes([channel]) + struct.pack("<H", port))
            threading.Thread(target=self._back, args=(pod,), daemon=True).start()
            for data in self._frames():
                assert data[0] == 0
                pod.sendall(data[1:])

    def _back(self, pod: socket.socket) -> None:
        with contextlib.suppress(OSError):  # one of the two is gone
            while data := pod.recv(65536):
                self._frame(b"\0" + data)

    def _frame(self, data: bytes) -> None:
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
        if len(data) > 0xFFFF:
            size = b"\x7f" + struct.pack(">Q", len(data))
        self.connection.sendall(b"\x82" + size + data)

    def _frames(self) -> Iterator[bytes]:
        """What a client sends, unmasked, until it closes."""
        while len(head := self.rfile.read(2)) == 2 and head[0] & 0x0F == 2:
            size = head[1] & 0x7F
            if size > 125:
                layout, width = (">H", 2) if size == 126 else (">Q", 8)
                (size,) = struct.unpack(layout, self.rfile.read(width))
            mask, data = self.rfile.read(4), self.rfile.read(size)
            yield bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


@contextmanager
def api_server(objects: Mapping[str, Any]) -> Iterator[_Server]:
    server = _Server(("127.0.0.1", 0), _Asked)
    server.objects, server.asked = objects, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)
