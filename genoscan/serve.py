"""A local web server for one folder, with support for the byte-range requests of genome browsers.

Python's http.server sends only whole files. With it, a browser would have to download an entire bigWig
file to draw one kilobase.
"""

import contextlib
import errno
import io
import math
import re
import socket
import sys
import threading
import time
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

from genoscan.errors import InputError

_LOOPBACK = "127.0.0.1"
_HOSTS = {_LOOPBACK, "localhost"}
_MAX_CONNECTIONS = 64
"""Maximum number of connections, each handled by one thread; browsers open at most 6 per server."""
_HEAD_SECONDS = 10
"""Maximum number of seconds between the connection and the end of the request's headers."""
_SECONDS = 30
"""Maximum number of seconds for which receiving or sending one block of data may take."""


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server for the files in a folder; its `serve_forever` method handles requests.

    Parameters
    ----------
    folder
        Folder to serve. Only clients on this machine can connect.
    port
        TCP port; 0 selects a free one.

    Returns
    -------
    ThreadingHTTPServer
        Server bound to the loopback address. It closes connections to clients that are too slow. If
        there are too many connections, it closes the oldest one.

    Raises
    ------
    InputError
        If the folder does not exist, or the port is in use.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    handler = partial(_Files, directory=str(folder.resolve()))
    try:
        return _Server((_LOOPBACK, port), handler)
    except (OSError, OverflowError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise InputError(f"--port {port}: is in use; choose another, or 0 for any") from None
        raise InputError(f"--port {port}: cannot be listened on: {error}") from None


class _Server(ThreadingHTTPServer):
    """HTTP server with a limited number of connections."""

    request_queue_size = _MAX_CONNECTIONS

    def __init__(self, *arguments: Any) -> None:
        self._lock = threading.Lock()
        self._deadlines: dict[socket.socket, float] = {}  # oldest first
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection in a new thread.

        If there are too many connections, the oldest one is closed.
        """
        with self._lock:
            if len(self._deadlines) >= _MAX_CONNECTIONS:
                self._cut(next(iter(self._deadlines)))
            self._deadlines[request] = time.monotonic() + _HEAD_SECONDS
        super().process_request(request, client_address)

    def keep(self, request: socket.socket) -> None:
        """Remove the deadline of a connection whose request has been received completely."""
        with self._lock:
            if request in self._deadlines:
                self._deadlines[request] = math.inf

    def service_actions(self) -> None:
        """Close the connections whose deadlines have passed.

        The server calls this method twice per second.
        """
        now = time.monotonic()
        with self._lock:
            for request in [request for request, deadline in self._deadlines.items() if deadline < now]:
                self._cut(request)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._deadlines.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error, unless it was caused by a timeout or by a closed connection."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def _cut(self, request: socket.socket) -> None:
        # Ends reads and writes of the connection's thread, which then closes the socket.
        del self._deadlines[request]
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)


class _Files(SimpleHTTPRequestHandler):
    """Request handler that sends a whole file or a range of its bytes."""

    server: _Server
    timeout = _SECONDS

    left: int | None = None
    """Number of bytes in the requested range still to be sent; None if the whole file is sent."""

    restricted = False
    """Whether the response is a page of the server's own, which needs no scripts."""

    def parse_request(self) -> bool:
        """Parse a request and remove the deadline; return whether the request is valid."""
        parsed = super().parse_request()
        self.server.keep(self.connection)
        return parsed

    def send_head(self) -> BinaryIO | None:
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        path = Path(self.translate_path(self.path)).resolve()
        # A different host name indicates DNS rebinding: a remote page trying to read local files.
        if host not in _HOSTS or not path.is_relative_to(self.directory):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if found is None or not any(found.groups()) or not path.is_file():
            return super().send_head()
        size = path.stat().st_size
        first, last = found.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(int(last), size - 1) if first and last else size - 1
        if start > end:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.send_header("Content-Length", str(end - start + 1))
        self.end_headers()
        file = path.open("rb")
        file.seek(start)
        self.left = end - start + 1
        return file

    def end_headers(self) -> None:
        """Add the headers that all responses share, and end the header section."""
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.restricted:
            self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
            self.restricted = False
        super().end_headers()

    def list_directory(self, path: str) -> io.BytesIO | None:  # type: ignore[override]
        """Send a list of the files in a folder, as a page that is not allowed to run scripts."""
        self.restricted = True
        return super().list_directory(path)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send an error message, as a page that is not allowed to run scripts."""
        self.restricted = True
        super().send_error(code, message, explain)

    def copyfile(self, source: BinaryIO, outputfile: BinaryIO) -> None:  # type: ignore[override]
        """Send the requested range of the file, or the whole file if no range was requested."""
        if self.left is None:
            return super().copyfile(source, outputfile)
        while self.left:
            piece = source.read(min(self.left, 1 << 20))
            if not piece:
                break
            outputfile.write(piece)
            self.left -= len(piece)
        self.left = None
        return None

    def log_message(self, *_arguments: object) -> None:
        """Suppress request logs."""
