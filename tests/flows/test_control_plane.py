"""The doctor's look at real Prefect servers that listen for other machines, with and without a password."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from support.prefect_server import serving

from mirasol.cli.control_plane import checks

pytestmark = [pytest.mark.slow]  # two servers are started
PASSWORD = "mirasol:secret"


@pytest.fixture(scope="module")
def address() -> str:
    """An address at which other machines reach this one."""
    found = [entry.address for entries in psutil.net_if_addrs().values() for entry in entries if entry.family == 2]
    others = [each for each in found if not each.startswith("127.")]
    return others[0] if others else pytest.skip("this machine has no address but the loopback")


@pytest.fixture(scope="module")
def open_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server on 0.0.0.0 without a password."""
    with serving(tmp_path_factory.mktemp("open"), host="0.0.0.0") as server:
        yield urlsplit(server.env["PREFECT_API_URL"]).port or 0


@pytest.fixture(scope="module")
def closed_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server on 0.0.0.0 with a password, which Prefect's own commands send."""
    home = tmp_path_factory.mktemp("closed")
    more = {"PREFECT_SERVER_API_AUTH_STRING": PASSWORD, "PREFECT_API_AUTH_STRING": PASSWORD}
    with serving(home, host="0.0.0.0", more=more) as server:
        server.command(*["prefect", "work-pool", "create", "mirasol", "--type", "process"], cwd=home)
        yield urlsplit(server.env["PREFECT_API_URL"]).port or 0


def texts(environment: dict[str, str]) -> list[tuple[str, str]]:
    return [(state, text) for state, text, _ in checks(environment)]


def test_an_open_server_fails_from_elsewhere_and_here(open_port: int, address: str, tmp_path: Path) -> None:
    url = f"http://{address}:{open_port}/api"
    plain, remote, here = texts({"PREFECT_API_URL": url})
    assert plain[0] == "note"
    assert remote == (
        "missing",
        f"{url} answers without credentials: anyone who reaches it can run code on the workers",
    )
    assert here[0] == "missing" and f"listens on 0.0.0.0:{open_port}" in here[1]
    assert texts({"PREFECT_SERVER_API_PORT": str(open_port)}) == [here]


def test_a_closed_server_is_ok_with_the_password(closed_port: int, address: str) -> None:
    url = f"http://{address}:{closed_port}/api"
    _, remote = texts({"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": PASSWORD})
    assert remote == ("ok", f"{url} answers with our credentials alone")
    assert texts({"PREFECT_API_URL": url})[1][0] == "missing"
