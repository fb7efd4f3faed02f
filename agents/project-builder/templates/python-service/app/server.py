"""The HTTP server: reads requests, answers them as JSON."""

import json
import sys
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from app.routes import ROUTES
from app.routing import Call, HttpError, Reply, Route, dispatch

HOST = "127.0.0.1"
# The largest request body that is read.
BODY_BYTES_MAX = 64 * 1024
# How long a connection may be silent.
SILENCE_SECONDS_MAX = 60

OPENAPI = json.loads((Path(__file__).parent.parent / "openapi.json").read_text("utf-8"))
STARTED = time.monotonic()


def health(_call: Call) -> Reply:
    uptime = int(time.monotonic() - STARTED)
    return Reply(200, {"status": "ok", "name": "{{name}}", "uptime_seconds": uptime})


def openapi(_call: Call) -> Reply:
    return Reply(200, OPENAPI)


SYSTEM_ROUTES = [
    Route("GET", "/health", health),
    Route("GET", "/openapi.json", openapi),
]


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    timeout = SILENCE_SECONDS_MAX
    # Head and body leave in one piece, and at once.
    wbufsize = -1
    disable_nagle_algorithm = True

    def answer(self) -> None:
        try:
            reply = self.reply()
        except HttpError as error:
            reply = error.reply()
        except Exception:
            traceback.print_exc(file=sys.stderr)
            reply = Reply(500, {"error": {"message": "internal error"}})
        self.send(reply)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def reply(self) -> Reply:
        body = self.read_json()
        try:
            target = urlsplit(self.path)
        except ValueError:
            raise HttpError(400, "the request target is not a path") from None
        query = dict(parse_qsl(target.query, keep_blank_values=True))
        return dispatch(SYSTEM_ROUTES + ROUTES, self.command, target.path, query, body)

    def read_json(self) -> Any:
        """The body as JSON; None when there is none."""
        if "transfer-encoding" in self.headers:
            self.close_connection = True
            raise HttpError(411, "the body must come with a content-length")
        length = self.headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            self.close_connection = True
            raise HttpError(400, "the content-length is not a number")
        if int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            raise HttpError(413, f"the body is larger than {BODY_BYTES_MAX} bytes")
        data = self.rfile.read(int(length))
        if not data:
            return None
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise HttpError(400, "the body is not JSON") from None

    def send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("connection", "close")
        data = b"" if reply.body is None else json.dumps(reply.body).encode()
        if data:
            self.send_header("content-type", "application/json; charset=utf-8")
        if reply.status != 204:
            self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged one by one."""


class Server(ThreadingHTTPServer):
    """One thread per connection."""

    daemon_threads = True
    request_queue_size = 128


def create_server(port: int) -> Server:
    """Listens; whoever calls serves."""
    return Server((HOST, port), Handler)
