"""Which clients may call the service, and from which addresses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.service import Service, running
from websockets.exceptions import InvalidStatus

from mirasol.core.errors import MirasolError
from mirasol.serve import run


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(token="secret") as found:
        yield found


def test_without_the_token_only_the_page_and_health_are_given(service: Service) -> None:
    found = {path: service.call("GET", path)[0] for path in ("/", "/healthz", "/readyz", "/metrics", "/openapi.json")}
    assert found == {"/": 200, "/healthz": 200, "/readyz": 200, "/metrics": 401, "/openapi.json": 401}
    assert service.call("POST", "/api/sessions")[0] == 401
    assert service.call("POST", "/api/sessions", Authorization="Bearer wrong")[0] == 401
    assert service.call("POST", "/api/sessions", Authorization="Bearer secret")[0] == 201


@pytest.mark.parametrize("host", ["elsewhere.example", "localhost.elsewhere.example", "[", ""])
def test_a_local_service_answers_to_no_other_name(service: Service, host: str) -> None:
    assert service.call("GET", "/healthz", Host=host)[0] == 421


@pytest.mark.parametrize("origin", ["http://elsewhere.example", "null", "http://localhost:1"])
def test_a_page_of_another_site_is_refused(service: Service, origin: str) -> None:
    assert service.call("GET", "/healthz", Origin=origin)[0] == 403
    session = service.manager.begin()
    with pytest.raises(InvalidStatus, match="403"):
        service.socket(f"/api/sessions/{session.id}", origin=origin)
    service.manager.end(session)


def test_the_own_page_is_not(service: Service) -> None:
    host = f"127.0.0.1:{service.port}"
    assert service.call("GET", "/healthz", Host=host, Origin=f"http://{host}")[0] == 200


def test_a_warning_says_whether_anybody_may_use_it() -> None:
    assert run.TOKEN in run._warning(token=False)
    assert "TLS" in run._warning(token=True)


@pytest.mark.parametrize("token", ["schlüssel", "two words", "end\n", "\udcff"])
def test_a_token_that_no_header_carries_unchanged_is_refused_at_the_start(
    token: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(run.TOKEN, token)
    with pytest.raises(MirasolError, match=f"{run.TOKEN} may hold only visible ASCII characters") as error:
        run.serve(service.manager.engine)
    assert token not in str(error.value)


def test_an_address_that_is_taken_is_named(service: Service) -> None:
    with pytest.raises(MirasolError, match=f"port {service.port}.*in use"):
        run.listen("127.0.0.1", service.port)
