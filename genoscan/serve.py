"""A web server for one folder and this machine alone, with the ranges that genome browsers ask for.

Python's own server sends whole files: a browser would load all of a bigWig to draw a kilobase.
"""

import errno
import re
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

from genoscan.errors import InputError

_LOOPBACK = "127.0.0.1"
_HOSTS = {_LOOPBACK, "localhost"}


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of the folder's files, listening; `serve_forever` answers.  Port 0: any.

    Raises
    ------
    InputError
        If there is no such folder, or the port is taken.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected one to serve")
    handler = partial(_Files, directory=str(folder.resolve()))
    try:
        return ThreadingHTTPServer((_LOOPBACK, port), handler)
    except (OSError, OverflowError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise InputError(f"--port {port}: is in use; name another, or 0 for any") from None
        raise InputError(f"--port {port}: cannot be listened on: {error}") from None


class _Files(SimpleHTTPRequestHandler):
    """One request: a file of the folder, or a range of its bytes."""

    left: int | None = None
    """Bytes of the range that are still to be sent."""

    def send_head(self) -> BinaryIO | None:
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        path = Path(self.translate_path(self.path)).resolve()
        # Another name for this machine is a page elsewhere that wants to look in here.
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
        """Say that ranges are served."""
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def copyfile(self, source: BinaryIO, outputfile: BinaryIO) -> None:  # type: ignore[override]
        """Send the range, or all."""
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

    def log_message(self, *_said: object) -> None:
        """Say nothing."""
