"""The server of a folder: ranges, and nothing that is not in it."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from commands import genoscan

from genoscan import serve
from genoscan.errors import InputError
from genoscan.serve import server

CONTENT = bytes(range(256)) * 5


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "track.bw").write_bytes(CONTENT)
    (tmp_path / "secret").write_text("not for you")
    (folder / "link").symlink_to(tmp_path / "secret")
    with server(folder, 0) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running.server_port
        running.shutdown()
        thread.join()


def get(port: int, path: str, **headers: str) -> tuple[int, bytes, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.getheader("Content-Range")
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("0-0", 0, 1),
        ("10-19", 10, 20),
        ("1270-", 1270, 1280),
        ("-5", 1275, 1280),
        ("1000-99999", 1000, 1280),
        ("-99999", 0, 1280),
    ],
)
def test_ranges(port: int, asked: str, start: int, end: int) -> None:
    status, body, told = get(port, "/track.bw", Range=f"bytes={asked}")
    assert (status, body) == (206, CONTENT[start:end])
    assert told == f"bytes {start}-{end - 1}/1280"


def test_whole_files_and_ranges_that_are_none(port: int) -> None:
    assert get(port, "/track.bw")[:2] == (200, CONTENT)
    assert get(port, "/track.bw", Range="bytes=-")[:2] == (200, CONTENT)
    assert get(port, "/track.bw", Range="bytes=1280-") == (416, b"", "bytes */1280")
    assert get(port, "/track.bw", Range="bytes=9-5")[0] == 416
    assert get(port, "/none")[0] == 404


def test_nothing_outside_the_folder(port: int) -> None:
    for path in ("/../secret", "/%2e%2e/secret", "/link", "//../../secret"):
        for headers in ({}, {"Range": "bytes=0-3"}):
            status, body, _ = get(port, path, **headers)
            assert status == 404
            assert b"not for you" not in body
    assert get(port, "/track.bw", Host="evil.example")[0] == 404


@contextmanager
def connections(port: int, n: int, request: bytes) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        found = []
        for _ in range(n):
            found.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)))
            found[-1].sendall(request)
        yield found


def await_threads(most: int) -> None:
    """Wait for the threads of connections that the server has closed: a thread ends after its connection."""
    end = time.monotonic() + 10
    while threading.active_count() > most and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= most


def ended(connection: socket.socket) -> bool:
    """Whether the server closes the connection before it has sent anything, at most 10 s from now."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("request_", [b"", b"GET /track.bw HTTP/1.1\r\nHost: localh", b"GET /tr"])
def test_many_slow_clients_hold_no_other(port: int, request_: bytes) -> None:
    before = threading.active_count()
    with connections(port, serve._MAX_CONNECTIONS + 40, request_) as slow:
        assert get(port, "/track.bw")[:2] == (200, CONTENT)
        assert all(ended(connection) for connection in slow[:40])
        await_threads(before + serve._MAX_CONNECTIONS)


def test_a_request_that_takes_too_long_is_ended(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then does not extend the time."""
    monkeypatch.setattr(serve, "_HEAD_SECONDS", 0.1)
    start = time.monotonic()
    with connections(port, 1, b"GET /track.bw HTTP/1.1\r\nX: ") as (slow,), pytest.raises(ConnectionError):
        while time.monotonic() < start + 10:
            slow.sendall(b"x")
            time.sleep(0.02)
    assert get(port, "/track.bw")[:2] == (200, CONTENT)


def test_a_client_that_does_not_read_is_ended(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve._Files, "timeout", 0.2)
    with (tmp_path / "served" / "large").open("wb") as file:
        file.truncate(100 << 20)
    before = threading.active_count()
    for header in (b"", b"Range: bytes=1-\r\n"):
        request = b"GET /large HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n"
        with connections(port, 1, request) as (slow,):
            assert slow.recv(9) == b"HTTP/1.0 "
            await_threads(before)
            assert threading.active_count() == before
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_port_in_use(port: int, tmp_path: Path) -> None:
    done = genoscan("serve", tmp_path, "--port", port)
    assert done.code == 1
    assert f"--port {port}: is in use" in done.err
    assert "cannot be listened on" in genoscan("serve", tmp_path, "--port", 99_999).err
    with pytest.raises(InputError, match="no such folder"):
        server(tmp_path / "none", 0)


def test_pages_of_the_server_itself_run_no_scripts(port: int) -> None:
    def policy(path: str) -> str | None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert answer.getheader("X-Content-Type-Options") == "nosniff"
        return answer.getheader("Content-Security-Policy")

    for path in ("/", "/none"):
        assert "default-src 'none'" in (policy(path) or "")
    assert policy("/track.bw") is None
