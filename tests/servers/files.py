"""A loopback HTTP server of files that can do everything wrong that servers do."""

import hashlib
import re
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Fault:
    """What goes wrong with one request: give it to `FileServer.fail`.

    `status` answers with an error; `cut_at` closes the connection after as many bytes of the body; `stall_at` sends
    nothing more from there on; `trickle` sends one byte each so many seconds; `wrong` sends other bytes of the right
    length; `page` sends an HTML page with status 200.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    stall_at: int | None = None
    trickle: float = 0.0
    wrong: bool = False
    page: bool = False


@dataclass
class Request:
    """A request as it came: path, headers, and how many bytes of body were sent for it."""

    path: str
    headers: dict[str, str]
    sent: int = 0


class FileServer:
    """Serves `files` (path -> bytes) at `url`; `requests` lists what was asked.

    `ranges`, `tags`, `lengths` and `conditions` (If-Range) switch off what a simple server lacks; `tag` is one ETag
    for all. `pages` (path prefix -> function of the handler) answers other requests.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.ranges = self.tags = self.lengths = self.conditions = True
        self.pages: dict[str, Callable[[Handler], None]] = {}
        self.gate = threading.Event()
        self.tag = ""
        self.slow = 0.0
        self._faults: dict[str, list[Fault]] = defaultdict(list)
        self._lock = threading.Lock()
        handler = type("BoundHandler", (Handler,), {"files": self})
        self._server = Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()

    def put(self, path: str, content: bytes) -> str:
        """Serve `content` at `path`; the address of it."""
        self.files[path] = content
        return self.url + path

    def fail(self, path: str, *faults: Fault) -> None:
        """The next requests for `path` meet these faults, one each."""
        self._faults[path] += faults

    def next_fault(self, path: str) -> Fault:
        with self._lock:
            faults = self._faults[path]
            return faults.pop(0) if faults else Fault()

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.requests if urlsplit(request.path).path == path]

    @property
    def sent(self) -> int:
        """Bytes of all bodies."""
        return sum(request.sent for request in self.requests)


class Server(ThreadingHTTPServer):
    """Says nothing of clients that hang up, as those do that a test kills."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers for a FileServer."""

    protocol_version = "HTTP/1.1"
    files: FileServer

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.record = Request(self.path, dict(self.headers))
        self.files.requests.append(self.record)
        path = urlsplit(self.path).path
        fault = self.files.next_fault(path)
        if fault.status:
            self.answer(fault.status, b"an error page", fault.headers)
            return
        for prefix, page in self.files.pages.items():
            if path.startswith(prefix):
                page(self)
                return
        if path not in self.files.files:
            self.answer(404, b"not found")
            return
        self._file(self.files.files[path], fault)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """A whole answer at once."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.record.sent += len(body)

    def _file(self, content: bytes, fault: Fault) -> None:
        if fault.page:
            self.answer(200, b"<html>Please log in to this network</html>", {"Content-Type": "text/html"})
            return
        tag = self.files.tag or f'"{hashlib.md5(content).hexdigest()}"'
        start, end, asked = 0, len(content), self.headers.get("Range")
        current = self.headers.get("If-Range", tag) == tag or not self.files.conditions
        if asked and self.files.ranges and current:
            first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", asked).groups()
            start, end = int(first), min(int(last) + 1 if last else len(content), len(content))
            if start >= len(content):
                self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        else:
            self.send_response(200)
        if self.files.tags:
            self.send_header("ETag", tag)
        if self.files.lengths:
            self.send_header("Content-Length", str(end - start))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        body = content[start:end]
        if fault.wrong:
            body = body.translate(bytes(range(255, -1, -1)))
        self._send(body, fault)

    def _send(self, body: bytes, fault: Fault) -> None:
        ends = [each for each in (fault.cut_at, fault.stall_at) if each is not None]
        size = min([*ends, len(body)])
        step = 1 if fault.trickle else (1 << 16 if self.files.slow else 1 << 20)
        try:
            for at in range(0, size, step):
                piece = body[at : min(at + step, size)]
                self.wfile.write(piece)
                self.wfile.flush()
                self.record.sent += len(piece)
                if pause := fault.trickle or self.files.slow:
                    time.sleep(pause)
            if fault.stall_at is not None:
                self.files.gate.wait(30)
        except OSError:
            pass
        if ends:
            self.close_connection = True
            self.connection.close()
