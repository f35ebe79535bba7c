"""Clients of ill will, bad luck or bad files: refused or cleaned up, and the service goes on for the others."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import sandboxed
from support.bundle import CLIP, tiny_bundle
from support.fuzz import Fuzzed, requests
from support.media import tone, write_media
from support.scratch import LIMIT
from support.service import QUESTION, Service, camera_chunk, events, running, until
from websockets.exceptions import ConnectionClosed, InvalidStatus

from mirasol.runtime.engine import Engine
from mirasol.runtime.model import load
from mirasol.runtime.session import Session
from mirasol.serve import uploads as decoding
from mirasol.serve.limits import Limits

CAP = 1 << 20
LIMITS = Limits(sessions=3, upload_bytes=CAP, stall_seconds=10.0)
ASK = json.dumps({"type": "ask", "question": QUESTION})
PLAY = json.dumps({"type": "play", "pace": "fast"})


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    with running(LIMITS) as found:
        yield found


@pytest.fixture
def service(shared: Service) -> Iterator[Service]:
    """Every test leaves a service that lives, and no session."""
    yield shared
    assert shared.call("GET", "/healthz")[0] == 200
    for path in list(shared.manager.sessions):
        shared.call("DELETE", f"/api/sessions/{path}")
    until(lambda: not list(shared.manager.folder.iterdir()))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3.5 s: seven chunks."""
    return write_media(tmp_path_factory.mktemp("media") / "clip.mkv", frames=28, size=(16, 16), sound=tone(3.5))


def sent(service: Service, request: Fuzzed) -> int:
    """The status of a request; 0 where the connection was closed without one."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=LIMIT)
    try:
        connection.request(request.method, request.path, request.body, request.headers)
        answer = connection.getresponse()
        body = answer.read()
    except (ConnectionError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
    if answer.status >= 400 and answer.headers["Content-Type"] == "application/json" and request.method != "HEAD":
        assert set(json.loads(body)) == {"error"}
    return answer.status


def test_a_thousand_malformed_requests() -> None:
    with running(Limits(sessions=4, upload_bytes=CAP, stall_seconds=0.5)) as service:
        description = service.call("GET", "/openapi.json")[1]
        ids = [service.session().rpartition("/")[2]]
        memory, found = 0, []
        for number, request in enumerate(itertools.islice(requests(description, ids, seed=6), 1000)):
            status = sent(service, request)
            assert status < 500 or status == 503, f"request {number}: {request} gave {status}"
            found.append(status)
            if not service.manager.sessions:
                ids[:] = [service.session().rpartition("/")[2]]
            if number == 200:
                memory = psutil.Process().memory_info().rss
        grown = psutil.Process().memory_info().rss - memory
        assert service.call("GET", "/readyz")[0] == 200
    assert grown < 64 << 20, f"{grown >> 20} MiB more after 800 requests"
    assert {200, 201, 403, 404, 405, 413, 421, 422} <= set(found), "the requests reach no further than the door"


def upload_head(path: str, *headers: str) -> bytes:
    return "\r\n".join((f"PUT {path}/media HTTP/1.1", "Host: localhost", *headers, "", "")).encode()


def status_of(raw: socket.socket) -> int:
    return int(raw.makefile("rb").readline().split()[1])


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", ("Sec-WebSocket-Key: x",)),
        ("GET", ()),
        ("GET", ("Sec-WebSocket-Key: x", "Content-Length: 4")),
        ("GET", ("Sec-WebSocket-Key: x", "Transfer-Encoding: chunked")),
    ],
)
def test_half_a_handshake_is_refused_and_its_connection_closed(
    method: str, headers: tuple[str, ...], service: Service
) -> None:
    asks = ("Host: localhost", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    with service.raw() as raw:
        raw.sendall("\r\n".join((f"{method} /healthz HTTP/1.1", *asks, *headers, "", "")).encode())
        answer = raw.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert set(json.loads(answer.partition(b"\r\n\r\n")[2])) == {"error"}


def test_an_upload_that_says_it_is_too_large_is_refused_before_it_is_sent(service: Service) -> None:
    with service.raw() as raw:
        raw.sendall(upload_head(service.session(), f"Content-Length: {2 << 30}"))
        assert status_of(raw) == 413


def test_an_upload_that_does_not_say_so_is_cut_off_at_the_cap(service: Service) -> None:
    biggest, count, done = 0, 0, threading.Event()

    def watch() -> None:
        nonlocal biggest
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):
                biggest = max([biggest, *(file.stat().st_size for file in service.manager.folder.iterdir())])
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    piece = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    with service.raw() as raw:
        raw.sendall(upload_head(service.session(), "Transfer-Encoding: chunked"))
        with contextlib.suppress(ConnectionError):
            while count < 2 << 30:
                raw.sendall(piece)
                count += 1 << 16
    done.set()
    watcher.join()
    assert biggest <= CAP
    assert count < 64 << 20, "it went on receiving"


def refused_for_size(service: Service) -> float:
    told = service.call("GET", "/metrics")[1].decode()
    return sum(
        float(line.split()[1]) for line in told.splitlines() if line.startswith('mirasol_refused_total{reason="size"}')
    )


def test_an_upload_over_the_cap_that_does_not_say_so_is_told_and_counted(service: Service) -> None:
    before = refused_for_size(service)
    pieces = (bytes(1 << 16) for _ in range(8 * CAP >> 16))  # all of it sent, before the answer is looked at
    status, found = service.call("PUT", f"{service.session()}/media", pieces)
    assert (status, found) == (413, {"error": f"the body is larger than the {CAP} bytes that may be sent here"})
    assert refused_for_size(service) == before + 1


def test_an_upload_over_the_cap_that_is_sent_all_the_same_is_told(service: Service) -> None:
    assert service.call("PUT", f"{service.session()}/media", bytes(8 * CAP))[0] == 413


def test_a_question_over_the_cap_that_does_not_say_so_is_told(service: Service) -> None:
    pieces = (b"a" * 1000 for _ in range(1000))
    assert service.call("POST", f"{service.session()}/answer", pieces, **{"Content-Type": "application/json"})[0] == 413


def test_a_request_that_is_too_large_is_refused(service: Service) -> None:
    body = b'{"question": "' + b"a" * LIMITS.body_bytes + b'"}'
    assert service.call("POST", f"{service.session()}/answer", body)[0] == 413


def test_a_client_that_sends_nothing_more_is_given_up(media: Path) -> None:
    with running(Limits(stall_seconds=0.3)) as service, service.raw() as raw:
        raw.sendall(upload_head(service.session(), "Content-Length: 1000") + b"half")
        assert status_of(raw) == 408


def test_a_client_that_vanishes_while_it_uploads_leaves_nothing(service: Service) -> None:
    session = service.session()
    with service.raw() as raw:
        raw.sendall(upload_head(session, "Content-Length: 100000") + bytes(50000))
        until(lambda: list(service.manager.folder.iterdir()))
    until(lambda: not list(service.manager.folder.iterdir()))
    assert service.call("GET", session)[0] == 404


def test_a_client_that_vanishes_while_it_streams_leaves_nothing(service: Service, media: Path) -> None:
    session = service.session()
    service.call("PUT", f"{session}/media", media.read_bytes())
    (client,) = service.manager.sessions.values()
    decoder = psutil.Process(client.upload._guard.pid)
    connection = service.socket(session)
    connection.send(json.dumps({"type": "play", "pace": "live"}))
    events(connection, "chunk")
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.socket.shutdown(socket.SHUT_RDWR)  # no goodbye
    until(lambda: not service.manager.sessions and not list(service.manager.folder.iterdir()))
    until(lambda: not decoder.is_running() or decoder.status() == psutil.STATUS_ZOMBIE)
    connection.close_socket()


def test_a_session_that_nobody_uses_is_ended(media: Path) -> None:
    with running(Limits(idle_seconds=0.3)) as service:
        session = service.session()
        service.call("PUT", f"{session}/media", media.read_bytes())
        until(lambda: not service.manager.sessions and not list(service.manager.folder.iterdir()))
        assert service.call("GET", session)[0] == 404


def test_a_connection_over_which_nothing_happens_is_ended() -> None:
    with running(Limits(idle_seconds=2.0)) as service, service.socket(service.session()) as idle:
        with pytest.raises(ConnectionClosed) as closed:
            events(idle, "never")
        assert closed.value.rcvd.code == 1001


def test_sessions_over_the_limit_are_refused_and_the_others_stay(service: Service) -> None:
    sessions = [service.session() for _ in range(LIMITS.sessions)]
    assert service.call("POST", "/api/sessions")[0] == 503
    service.call("DELETE", sessions[0])
    assert service.call("POST", "/api/sessions")[0] == 201
    assert all(service.call("GET", session)[0] == 200 for session in sessions[1:])


def test_requests_over_the_limit_are_refused_and_health_is_not() -> None:
    with running(Limits(requests=1)) as service, service.raw() as raw:
        session = service.session()
        raw.sendall(upload_head(session, "Content-Length: 10") + b"half")
        until(lambda: list(service.manager.folder.iterdir()))
        assert service.call("GET", session)[0] == 503
        assert service.call("GET", "/healthz")[0] == 200


def test_two_sessions_at_once_answer_as_each_alone(service: Service, media: Path) -> None:
    own = Session(Engine(tiny_bundle(), threads=1))
    uploaded, camera = service.session(), service.session()
    service.call("PUT", f"{uploaded}/media", media.read_bytes())
    with service.socket(uploaded) as first, service.socket(camera) as second:
        first.send(PLAY)
        for seed in range(7):
            message, video, samples = camera_chunk(seed)
            second.send(message)
            own.push(video, samples)
        events(first, "ended")
        for connection in (first, second):
            connection.send(ASK)
        found = [events(connection, "answer")[-1]["answer"] for connection in (first, second)]
    assert found == [str(load(tiny_bundle()).answer(media, QUESTION)), str(own.ask(QUESTION))]


def test_a_session_knows_nothing_of_another(service: Service) -> None:
    first, second = service.session(), service.session()
    assert first != second and len(first.rpartition("/")[2]) == 32
    with service.socket(first) as one, service.socket(second) as other:
        one.send(camera_chunk(0)[0])
        events(one, "chunk")
        other.send(ASK)
        assert "nothing to ask about" in events(other, "error")[-1]["message"]


def test_a_session_has_one_connection(service: Service) -> None:
    session = service.session()
    with service.socket(session), pytest.raises(InvalidStatus, match="403"):
        service.socket(session)


def test_a_connection_ends_with_its_session(service: Service) -> None:
    for _ in range(LIMITS.sessions + 1):  # else each would keep a stream that no limit counts
        session = service.session()
        with service.socket(session) as connection:
            assert service.call("DELETE", session)[0] == 204
            with contextlib.suppress(ConnectionClosed):
                connection.send(camera_chunk(0)[0])
            with pytest.raises(ConnectionClosed) as closed:
                events(connection, "chunk")
            assert closed.value.rcvd.code in (1001, 1003)


def test_a_connection_is_told_when_its_session_ends(service: Service) -> None:
    session = service.session()
    with service.socket(session) as connection:
        connection.send(camera_chunk(0)[0])
        events(connection, "chunk")
        service.call("DELETE", session)
        assert "has ended" in events(connection, "error")[-1]["message"]
        with pytest.raises(ConnectionClosed) as closed:
            events(connection, "never")
    assert closed.value.rcvd.code == 1001


BAD = {
    "no JSON": "{",
    "no order": '{"type": "delete"}',
    "no object": "[" * 2000,
    "half a character": '{"type": "ask", "question": "\\ud800"}',
    "other fields": '{"type": "play", "path": "/etc/passwd"}',
    "empty": b"",
    "another kind": b"MIR2\x03\0\0\0" + bytes(5000),
    "half a header": b"MIR1\0\0\0",
    "nothing, and more": b"MIR1\0\0\0\0\0",
    "a kind to come": b"MIR1\x04\0\0\0",
    "too short": camera_chunk(0)[0][:-1],
    "too long": camera_chunk(0)[0] + b"\0",
    "larger than any chunk": bytes(1 << 20),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_message_ends_its_connection_alone(service: Service, name: str) -> None:
    with service.socket(service.session()) as good, service.socket(service.session()) as bad:
        bad.send(BAD[name])
        with pytest.raises(ConnectionClosed) as closed:
            events(bad, "never")
        assert closed.value.rcvd.code in (1007, 1009)
        good.send(camera_chunk(0)[0])
        events(good, "chunk")


@pytest.mark.parametrize(
    "frame", [b"\xff\xff\xff", b"\x81\x05hello", b"\x82\xff" + b"\xff" * 8, b"\x81\x82\0\0\0\0\xc3\x28"]
)
def test_bytes_that_are_no_frame_end_the_connection(service: Service, frame: bytes) -> None:
    connection = service.socket(service.session())
    connection.socket.sendall(frame)
    until(lambda: not service.manager.sessions)
    connection.close_socket()


def test_a_question_that_cannot_be_asked_ends_nothing(service: Service) -> None:
    with service.socket(service.session()) as connection:
        connection.send(camera_chunk(0)[0])
        for question in (" ", "which " * 20, "a" * (LIMITS.question_characters + 1)):
            connection.send(json.dumps({"type": "ask", "question": question}))
            events(connection, "error")
        connection.send(ASK)
        events(connection, "answer")


HUGE_GIF = b"GIF89a" + b"\xff" * 4 + b"\xf0" + bytes(8) + b"," + bytes(4) + b"\xff" * 4 + b"\0\x02\x02D\x01\0;"
FILES = {
    "no media": b"hello" * 1000,
    "empty": b"",
    "a playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hosts\n#EXT-X-ENDLIST\n",
    "a list of files": b"ffconcat version 1.0\nfile /etc/hosts\n",
    "a picture of 4 gigapixels": HUGE_GIF,
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_no_use_is_refused(service: Service, name: str) -> None:
    status, found = service.call("PUT", f"{service.session()}/media", FILES[name])
    assert status == 422
    assert str(service.manager.folder) not in found["error"]


@pytest.mark.parametrize("what", [sandboxed.crash, sandboxed.eat, sandboxed.be_killed, sandboxed.hang])
def test_a_decoder_that_crashes_or_hangs_is_its_session_s_alone(
    what: Callable[..., Any], media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(Limits(stall_seconds=5.0)) as service:
        monkeypatch.setattr(decoding, "following", what)
        session = service.session()
        status, found = service.call("PUT", f"{session}/media", media.read_bytes())
        assert (status, "decoder" in found["error"]) == (422, True)
        assert not list(service.manager.folder.iterdir())
        monkeypatch.undo()
        assert service.call("PUT", f"{session}/media", media.read_bytes())[0] == 201


def test_a_file_whose_end_is_missing_plays_as_far_as_it_goes(service: Service, media: Path) -> None:
    session = service.session()
    content = media.read_bytes()
    assert service.call("PUT", f"{session}/media", content[: len(content) * 2 // 3])[0] == 201
    status, found = service.call("POST", f"{session}/answer", {"question": QUESTION})
    assert status == 200
    assert 1 <= found["chunks"] <= 7
    assert found["seconds"] == found["chunks"] * CLIP.chunk_seconds


def test_a_file_that_cannot_be_watched_to_its_end_is_not_answered_about_the_next_time_either(
    service: Service, tmp_path: Path
) -> None:
    times = [i / 8 for i in range(16)] + [9000 + i / 8 for i in range(8)]
    jumping = write_media(tmp_path / "jump.mkv", frames=24, size=(16, 16), times=times)
    session = service.session()
    assert service.call("PUT", f"{session}/media", jumping.read_bytes())[0] == 201
    first, second = (service.call("POST", f"{session}/answer", {"question": QUESTION}) for _ in range(2))
    assert first[0] == 422 and "jump by" in first[1]["error"]
    assert second == first


@pytest.mark.parametrize("question", [" ", "which " * 20])
def test_a_question_that_cannot_be_asked_is_refused_before_the_file_is_watched(
    service: Service, media: Path, question: str
) -> None:
    session = service.session()
    service.call("PUT", f"{session}/media", media.read_bytes())
    assert service.call("POST", f"{session}/answer", {"question": question})[0] == 422
    assert service.call("GET", session)[1]["chunks"] == 0
