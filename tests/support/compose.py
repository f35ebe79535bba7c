"""The services of docker-compose.yaml as processes of this machine: no containers, the same commands and settings."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from support.prefect_server import environment, kill
from support.scratch import REPOSITORY, wait_until

FILE = REPOSITORY / "docker-compose.yaml"
EXAMPLE = REPOSITORY / ".env.example"
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([?-])([^}]*))?\}")


def services() -> dict[str, Any]:
    """The services as the file has them."""
    return dict(YAML(typ="safe").load(FILE)["services"])


def filled(value: Any, variables: dict[str, str]) -> Any:
    """``value`` with the variables that Compose would put in."""
    if isinstance(value, dict):
        return {key: filled(entry, variables) for key, entry in value.items()}
    if isinstance(value, list):
        return [filled(entry, variables) for entry in value]
    if not isinstance(value, str):
        return value
    return VARIABLE.sub(lambda m: variables.get(m[1]) or m[3] or "", value).replace("$$", "$")


def free_port() -> int:
    """A port that no program listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Services:
    """Starts services by name. ``addresses`` are those of this machine for the `host:port` and folders of the file."""

    def __init__(self, variables: dict[str, str], addresses: dict[str, str], home: Path) -> None:
        self.text = {name: filled(entry, variables) for name, entry in services().items()}
        self.addresses, self.home = addresses, home

    def _here(self, text: str) -> str:
        if text in self.addresses:
            return self.addresses[text]
        for there, here in self.addresses.items():
            if ":" in there:
                text = text.replace(there, here)
        return text

    def settings(self, name: str) -> dict[str, str]:
        """The environment of a service, in ours."""
        own = {key: self._here(str(value)) for key, value in self.text[name].get("environment", {}).items()}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return environment(self.home) | {"PATH": path} | own

    def command(self, name: str) -> list[str]:
        """The command of a service."""
        return [self._here(word) for word in self.text[name]["command"]]

    @contextlib.contextmanager
    def running(self, name: str, folder: Path, *more: str) -> Iterator[None]:
        """The service, started in ``folder``, with ``more`` words behind its command."""
        with (self.home / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                [*self.command(name), *more], cwd=folder, env=self.settings(name), stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield
        finally:
            kill(process)


@contextlib.contextmanager
def postgres(password: str) -> Iterator[int]:
    """PostgreSQL with the user and the database of the file; yields its port. It refuses to run as root."""
    user: str | None = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="mirasol-postgres-"))
    (folder / "password").write_text(password)
    port = free_port()
    try:
        if user:
            shutil.chown(folder, user)
            shutil.chown(folder / "password", user)
        make = f"initdb --pgdata {folder}/data --username prefect --auth scram-sha-256 --pwfile {folder}/password"
        subprocess.run(make.split(), user=user, cwd=folder, check=True, capture_output=True)
        start = f"postgres -D {folder}/data -p {port} -k {folder} -c listen_addresses=127.0.0.1"
        server = subprocess.Popen(
            start.split(), user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            ready = ["pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
            wait_until("PostgreSQL", lambda: subprocess.run(ready, check=False).returncode == 0)
            create = ["createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "prefect"]
            subprocess.run(create, env=os.environ | {"PGPASSWORD": password}, check=True)
            yield port
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20)
            kill(server)
    finally:
        time.sleep(0.1)
        shutil.rmtree(folder, ignore_errors=True)
