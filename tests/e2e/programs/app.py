"""One program for every service of the application: listeners, and callers that write down each request's fate.

Enters: the environment variable PLAN, JSON: {"process", "listen": ["http:8080", ...], "calls": [{"to", "every", ...}],
"lifetime"}. Listeners take both families, where there are two; a call whose scheme ends in a number ("tcp6://...") uses
that family alone. Leaves: one JSON line a second on standard output: the ledger, {"at", "calls": {to: [ok, failed,
connections, last error]}}, in totals since the start. Standard library, and psycopg2 where a call is to PostgreSQL.
"""

import http.client
import http.server
import json
import os
import signal
import socket
import socketserver
import struct
import sys
import threading
import time
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

ANSWER_SECONDS = 5.0
LEDGER_SECONDS = 1.0
RUNNING = threading.Event()  # SIGUSR1 clears it, SIGUSR2 sets it: a load that stands still can be counted exactly
FRAME = struct.Struct(">I")
FAMILIES = {"4": socket.AF_INET, "6": socket.AF_INET6}
LISTENING = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET


def accept_ipv4(listener: socket.socket) -> None:
    """IPv4, too, on a socket of IPv6."""
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)


# ---- listeners


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"ok\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The ledger is the log."""


class HttpServer(http.server.ThreadingHTTPServer):
    address_family = LISTENING
    request_queue_size = 256

    def server_bind(self) -> None:
        """Without HTTPServer's, which looks its own name up: a link that nobody asked for."""
        accept_ipv4(self.socket)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "", self.server_address[1]


class Framed(socketserver.BaseRequestHandler):
    """Frames of a length and as many bytes, each sent back: many requests on one connection, as gRPC does."""

    def handle(self) -> None:
        try:
            while True:
                self.request.sendall(read_frame(self.request))
        except OSError:
            return


class TcpServer(socketserver.ThreadingTCPServer):
    address_family = LISTENING
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def server_bind(self) -> None:
        accept_ipv4(self.socket)
        super().server_bind()


def read_exactly(connection: socket.socket, wanted: int) -> bytes:
    found = b""
    while len(found) < wanted:
        part = connection.recv(wanted - len(found))
        if not part:
            raise ConnectionResetError("the other side closed")
        found += part
    return found


def read_frame(connection: socket.socket) -> bytes:
    head = read_exactly(connection, FRAME.size)
    return head + read_exactly(connection, FRAME.unpack(head)[0])


def serve_datagrams(port: int, *, answers: bool) -> None:
    with socket.socket(LISTENING, socket.SOCK_DGRAM) as server:
        accept_ipv4(server)
        server.bind(("", port))
        while True:
            data, peer = server.recvfrom(65535)
            if answers:
                server.sendto(data, peer)


def listen(wanted: str) -> None:
    kind, _, number = wanted.partition(":")
    port = int(number)
    match kind:
        case "http":
            run = HttpServer(("", port), Answer).serve_forever
        case "tcp":
            run = TcpServer(("", port), Framed).serve_forever
        case _:
            threading.Thread(
                target=serve_datagrams, args=(port,), kwargs={"answers": kind == "udp"}, daemon=True
            ).start()
            return
    threading.Thread(target=run, daemon=True).start()


# ---- callers


class Caller(threading.Thread):
    """Makes one call again and again; a call with `keep` holds its connection."""

    def __init__(self, call: dict) -> None:
        super().__init__(daemon=True)
        self.to = call["to"]
        self.every = call.get("every", 0.5)
        self.keep = call.get("keep", False)
        self.source = (call["source"], 0) if "source" in call else None
        self.ok = self.failed = self.connections = 0
        self.error = ""
        self.kept: socket.socket | None = None

    def run(self) -> None:
        while True:
            RUNNING.wait()
            started = time.monotonic()
            self.once()
            time.sleep(max(0.0, self.every - (time.monotonic() - started)))

    def once(self) -> bool:
        parts = urlsplit(self.to)
        try:
            CALLS[parts.scheme.rstrip("46")](self, self.looked_up(parts), parts.port)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is written down
            self.failed += 1
            self.error = f"{type(error).__name__}: {error}".strip()
            if self.kept is not None:
                self.kept.close()
                self.kept = None
            return False
        self.ok += 1
        return True

    def looked_up(self, parts: SplitResult) -> str:
        """The host: its first address of the call's family, or its name where any family will do."""
        family = FAMILIES.get(parts.scheme[-1])
        if family is None:
            return parts.hostname
        return socket.getaddrinfo(parts.hostname, parts.port, family, socket.SOCK_STREAM)[0][4][0]

    def connect(self, host: str, port: int) -> socket.socket:
        if self.kept is not None:
            return self.kept
        connection = socket.create_connection((host, port), timeout=ANSWER_SECONDS)
        self.connections += 1
        if self.keep:
            self.kept = connection
        return connection

    def done(self, connection: socket.socket) -> None:
        if not self.keep:
            connection.close()

    def http(self, host: str, port: int) -> None:
        client = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS, source_address=self.source)
        client.connect()
        self.connections += 1
        try:
            client.request("GET", "/")
            answer = client.getresponse()
            if answer.status != 200 or answer.read() != b"ok\n":
                raise OSError(f"answered {answer.status}")
        finally:
            client.close()

    def tcp(self, host: str, port: int) -> None:
        connection = self.connect(host, port)
        connection.sendall(FRAME.pack(5) + b"hello")
        if read_frame(connection) != FRAME.pack(5) + b"hello":
            raise OSError("another answer")
        self.done(connection)

    def redis(self, host: str, port: int) -> None:
        connection = self.connect(host, port)
        connection.sendall(b"PING\r\n")
        if read_exactly(connection, 7) != b"+PONG\r\n":
            raise OSError("another answer")
        self.done(connection)

    def postgres(self, host: str, port: int) -> None:
        import psycopg2

        connection = psycopg2.connect(
            host=host, port=port, user="postgres", dbname="postgres", connect_timeout=5, sslmode="disable"
        )
        self.connections += 1
        try:
            with connection.cursor() as cursor:
                cursor.execute("select 1")
                cursor.fetchone()
        finally:
            connection.close()

    def udp(self, host: str, port: int) -> None:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.settimeout(ANSWER_SECONDS)
            client.sendto(b"hello", address)
            if client.recv(65535) != b"hello":
                raise OSError("another answer")

    def statsd(self, host: str, port: int) -> None:
        """One way: nobody answers."""
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.sendto(b"requests:1|c", address)


CALLS = {
    "http": Caller.http,
    "tcp": Caller.tcp,
    "redis": Caller.redis,
    "postgres": Caller.postgres,
    "udp": Caller.udp,
    "statsd": Caller.statsd,
}


def write_ledger(callers: list[Caller]) -> None:
    calls = {each.to: [each.ok, each.failed, each.connections, each.error] for each in callers}
    print(json.dumps({"at": time.time(), "calls": calls}), flush=True)


def main(plan: dict) -> int:
    # The name of the thread group's leader is the process's name.
    Path("/proc/self/comm").write_text(plan["process"][:15])
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGUSR1, lambda *_: RUNNING.clear())
    signal.signal(signal.SIGUSR2, lambda *_: RUNNING.set())
    RUNNING.set()
    for wanted in plan.get("listen", []):
        listen(wanted)
    callers = [Caller(call) for call in plan.get("calls", [])]
    if plan.get("once"):
        went_well = [each.once() for each in callers]
        write_ledger(callers)
        return 0 if all(went_well) else 1
    for each in callers:
        each.start()
    while True:
        time.sleep(LEDGER_SECONDS)
        write_ledger(callers)


if __name__ == "__main__":
    sys.exit(main(json.loads(os.environ["PLAN"])))
