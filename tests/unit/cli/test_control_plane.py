"""The doctor finds a Prefect API that answers without credentials. The server here is a small stand-in.

tests/flows/test_control_plane.py asks a real one.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mirasol.cli import control_plane
from mirasol.cli.control_plane import checks, loopback


@dataclass
class StandIn:
    """An API that lists flows; ``password`` guards it, ``status`` replaces its answer."""

    port: int = 0
    password: str = ""
    status: int = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in, which counts as another machine; nothing else listens here."""
    api = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            wanted = "Basic " + base64.b64encode(api.password.encode()).decode()
            refused = api.password and self.headers["Authorization"] != wanted
            self.send_response(401 if refused else api.status)
            if api.status == 302:
                self.send_header("Location", f"http://127.0.0.1:{api.port}/login")
            self.end_headers()
            self.wfile.write(b'[{"name": "pipeline"}]')

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(control_plane, "loopback", lambda host: False)
    monkeypatch.setattr(control_plane, "_listening", lambda ports: set())
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        api.port = made.server_port
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield api
        made.shutdown()


def judged(server: StandIn, auth: str = "") -> tuple[str, str, str]:
    """The finding about credentials; that about plain http is the one before it."""
    (first, text, _), last = checks({"PREFECT_API_URL": server.url, "PREFECT_API_AUTH_STRING": auth})
    assert first == "note" and "is plain http" in text
    return last


def test_an_api_without_credentials_fails_the_check(server: StandIn) -> None:
    state, text, fix = judged(server)
    assert state == "missing" and "answers without credentials: anyone" in text
    assert "PREFECT_SERVER_API_AUTH_STRING=user:SECRET" in fix


def test_an_api_that_takes_our_password_alone_is_ok(server: StandIn) -> None:
    server.password = "mirasol:secret"
    assert judged(server, "mirasol:secret")[0] == "ok"


@pytest.mark.parametrize(("ours", "said"), [("", "we have none"), ("mirasol:wrong", "refuses our credentials")])
def test_a_password_that_we_lack_is_named(server: StandIn, ours: str, said: str) -> None:
    server.password = "mirasol:secret"
    state, text, _ = judged(server, ours)
    assert state == "missing" and said in text


def test_a_page_to_sign_in_at_is_no_answer_without_credentials(server: StandIn) -> None:
    server.status = 302
    assert "is no Prefect API: status 302" in judged(server)[1]


def test_a_server_that_does_not_answer_is_named(server: StandIn) -> None:
    gone = StandIn(port=1)
    state, text, _ = judged(gone)
    assert state == "missing" and "does not answer: " in text and "refused" in text


@pytest.mark.parametrize(("url", "said"), [("nowhere", "unknown url type"), ("http://host:x/api", "cannot be read")])
def test_an_address_that_is_none_is_named(server: StandIn, url: str, said: str) -> None:
    assert said in " ".join(text for _, text, _ in checks({"PREFECT_API_URL": url}))


def test_a_server_that_listens_for_others_without_credentials_fails_the_check(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_plane, "_listening", lambda ports: {("0.0.0.0", server.port)})
    ((state, text, _),) = checks({})
    assert state == "missing" and f"listens on 0.0.0.0:{server.port} and asks for no credentials" in text
    server.password = "mirasol:secret"
    assert list(checks({})) == []


@pytest.mark.parametrize(
    ("host", "ours"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("192.0.2.7", False)],
)
def test_loopback_addresses_are_known(host: str, ours: bool) -> None:
    assert loopback(host) is ours
