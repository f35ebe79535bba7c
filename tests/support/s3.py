"""An S3 server of this machine, started for the tests of a module."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from typing import Any

import pytest

REASON = "needs a local S3 server: pip install 's3fs' 'moto[s3]' flask flask-cors"


@dataclass
class Server:
    """A server, and the file system of its bucket `media`. The contents outlive :meth:`stop`."""

    server: Any
    files: Any

    def stop(self) -> None:
        self.server.stop()
        self.server._server.server_close()  # else connections wait instead of being refused

    def start(self) -> None:
        """Again, at the same address."""
        self.server.start()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server whose address and credentials are in the environment."""
    s3fs = pytest.importorskip("s3fs", reason=REASON)
    made = pytest.importorskip("moto.server", reason=REASON).ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    made.start()
    host, port = made.get_host_and_port()
    made._port = port
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in settings.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        forkserver._forkserver._stop()  # type: ignore[attr-defined]  # one that runs has the environment of before
        files = s3fs.S3FileSystem()
        if not files.exists("media"):  # of an earlier module: a server's contents are its process's
            files.mkdir("media")
        yield Server(made, files)
        s3fs.S3FileSystem.clear_instance_cache()
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    with contextlib.suppress(Exception):
        made.stop()


@pytest.fixture
def bucket(server: Server) -> Any:
    """The file system of a bucket `media`."""
    return server.files
