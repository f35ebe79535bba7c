"""The services of docker-compose.yaml, as processes: PostgreSQL, server with a password, S3 store, set-up, worker.

The store is moto instead of versitygw, and no container is started.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.compose import Services, free_port, postgres
from support.scratch import REPOSITORY, make_project, wait_until

pytestmark = [pytest.mark.slow]
VARIABLES = {
    "POSTGRES_PASSWORD": "one",
    "PREFECT_USER": "mirasol",
    "PREFECT_PASSWORD": "two",
    "STORE_USER": "three",
    "STORE_PASSWORD": "four",
}


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """The address of an S3 server."""
    made = pytest.importorskip("moto.server", reason="needs moto[s3]").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0
    )
    made.start()
    host, port = made.get_host_and_port()
    yield f"{host}:{port}"
    made.stop()


def test_the_worker_runs_the_pipeline_and_its_results_reach_the_store(store: str, tmp_path: Path) -> None:
    if shutil.which("initdb") is None:
        pytest.skip("needs PostgreSQL's initdb, postgres, pg_isready and createdb on PATH")
    root = make_project(tmp_path / "project")
    (root / "flows").symlink_to(REPOSITORY / "flows")
    shutil.copy(REPOSITORY / "prefect.yaml", root)
    home, port = tmp_path / "home", free_port()
    home.mkdir()
    with postgres(VARIABLES["POSTGRES_PASSWORD"]) as database:
        addresses = {"postgres:5432": f"127.0.0.1:{database}", "server:4200": f"127.0.0.1:{port}"}
        addresses |= {"store:7070": store, "/mirasol": str(root)}
        made = Services(VARIABLES, addresses, home)
        client = made.settings("worker")

        def call(*command: str, check: bool = True) -> str:
            done = subprocess.run(command, cwd=root, env=client, capture_output=True, text=True, check=False)
            assert not check or done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        with made.running("server", tmp_path, "--port", str(port), "--no-ui"):
            health = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{port}/api/health', timeout=5)"
            ask = ["python", "-c", health]
            wait_until(
                "the server", lambda: subprocess.run(ask, env=client, capture_output=True, check=False).returncode == 0
            )
            call(*made.command("setup"))
            with made.running("worker", tmp_path):
                run = "prefect deployment run pipeline/nightly --param push=true --param report=false --watch"
                said = call(*run.split())
                assert "Completed" in said
    listed = "import s3fs; print(len(s3fs.S3FileSystem().find('mirasol')))"
    assert int(call("python", "-c", listed)) >= 5
