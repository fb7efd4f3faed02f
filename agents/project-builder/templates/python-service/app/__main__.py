"""Starts and stops the server: python3 -m app."""

import os
import signal
import sys
import threading

from app.server import create_server

PORT_UNLESS_SET = 3000


def read_port(text: str | None) -> int:
    """Port 0 lets the system choose one."""
    if not text:
        return PORT_UNLESS_SET
    if text.isascii() and text.isdigit() and int(text) <= 65_535:
        return int(text)
    sys.exit(f"PORT must be a number from 0 to 65535, not {text!r}")


def main() -> None:
    try:
        server = create_server(read_port(os.environ.get("PORT")))
    except OSError as error:
        sys.exit(f"cannot serve: {error}")

    def stop(_number: int, _frame: object) -> None:
        # shutdown() waits for the serving loop, which this very thread runs.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    host, port = server.server_address[:2]
    print(f"listening on http://{host}:{port}", flush=True)
    with server:
        server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
