"""A server with a password behind examples/Caddyfile: requests, web sockets and the doctor go through TLS."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.compose import free_port
from support.prefect_server import Prefect, kill, serving
from support.scratch import REPOSITORY, wait_until

from mirasol.cli import control_plane

pytestmark = [pytest.mark.slow]
PASSWORD = "mirasol:secret"


@dataclass
class Proxied:
    """The server, and the environment of a client that reaches it through the proxy."""

    server: Prefect
    client: dict[str, str]


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """The server behind Caddy, which makes its own certificate for localhost and leaves the machine's trust alone."""
    if shutil.which("caddy") is None:
        pytest.skip("needs caddy on PATH")
    home, port = tmp_path_factory.mktemp("proxied"), free_port()
    (home / "Caddyfile").write_text(
        "{\n\tskip_install_trust\n\tauto_https disable_redirects\n\tadmin off\n}\n"
        f"import {REPOSITORY / 'examples/Caddyfile'}\n"
    )
    more = {"PREFECT_SERVER_API_AUTH_STRING": PASSWORD, "PREFECT_API_AUTH_STRING": PASSWORD}
    with serving(home, more=more) as server, (home / "caddy.log").open("w") as log:
        behind = urlsplit(server.env["PREFECT_API_URL"]).port
        own = {"MIRASOL_HOST": f"localhost:{port}", "PREFECT_PORT": str(behind), "XDG_DATA_HOME": str(home)}
        caddy = subprocess.Popen(
            ["caddy", "run", "--config", str(home / "Caddyfile")],
            env=os.environ | own, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        root = home / "caddy/pki/authorities/local/root.crt"
        try:
            wait_until("Caddy's certificate", root.exists)
            url = f"https://localhost:{port}/api"
            yield Proxied(server, server.env | {"PREFECT_API_URL": url, "PREFECT_API_SSL_CERT_FILE": str(root)})
        finally:
            kill(caddy)


def test_the_doctor_is_content(proxied: Proxied, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_plane, "loopback", lambda host: host != "localhost")
    monkeypatch.setenv("PREFECT_API_SSL_CERT_FILE", proxied.client["PREFECT_API_SSL_CERT_FILE"])

    def answers() -> list[control_plane.Check]:
        found = list(control_plane.checks(proxied.client))
        return [] if "does not answer" in found[0][1] else found

    url = proxied.client["PREFECT_API_URL"]
    assert wait_until("the proxy", answers) == [("ok", f"{url} answers with our credentials alone", "")]


def test_commands_and_events_pass(proxied: Proxied, tmp_path: Path) -> None:
    through = Prefect(proxied.server.api, proxied.client)
    through.command("prefect", "work-pool", "create", "mirasol", "--type", "process", cwd=tmp_path)
    through.command("prefect", "event", "emit", "mirasol.new-data", "--resource-id", "mirasol.incoming", cwd=tmp_path)
    proxied.server.api.auth = ("mirasol", "secret")
    wanted = {"filter": {"event": {"name": ["mirasol.new-data"]}}}

    def arrived() -> bool:
        return bool(proxied.server.api.post("/events/filter", json=wanted).raise_for_status().json()["events"])

    wait_until("the event", arrived)
