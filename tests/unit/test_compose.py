"""docker-compose.yaml names services, volumes and variables that exist; Docker itself is not asked."""

from __future__ import annotations

import re

import pytest
from ruamel.yaml import YAML
from support.compose import EXAMPLE, FILE, VARIABLE, services


def test_services_wait_for_services_that_exist() -> None:
    found = services()
    assert set(found) == {"postgres", "server", "store", "setup", "worker"}
    for name, service in found.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in found, name
            assert how["condition"] != "service_healthy" or "healthcheck" in found[other], other


def test_volumes_exist() -> None:
    used = {mount.partition(":")[0] for service in services().values() for mount in service.get("volumes", ())}
    assert used == set(YAML(typ="safe").load(FILE)["volumes"])


def test_variables_are_those_of_the_example() -> None:
    used = {match[1] for match in VARIABLE.finditer(FILE.read_text())}
    assert used == set(re.findall(r"^(\w+)=", EXAMPLE.read_text(), re.MULTILINE))


def test_passwords_have_no_default() -> None:
    for name, kind in {match[1]: match[2] for match in VARIABLE.finditer(FILE.read_text())}.items():
        if "PASSWORD" in name:
            assert kind == "?", name
            assert f"\n{name}=\n" in EXAMPLE.read_text()


def test_no_service_is_open_to_other_machines() -> None:
    ports = [port for service in services().values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("name", [".gitignore", ".dockerignore"])
def test_neither_git_nor_the_image_takes_the_passwords(name: str) -> None:
    assert {"/.env", ".env"} & set((FILE.parent / name).read_text().splitlines())
