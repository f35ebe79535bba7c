"""One Prefect server and one process worker for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.prefect_server import Prefect, prefect, working  # noqa: F401  (a fixture)
from support.scratch import REPOSITORY, make_project


@pytest.fixture(scope="session")
def deployed(
    prefect: Prefect,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """A scratch project with the real flows and prefect.yaml, deployed, and a worker that serves it."""
    root = make_project(tmp_path_factory.mktemp("flows") / "project")
    (root / "flows").symlink_to(REPOSITORY / "flows")
    text = (REPOSITORY / "prefect.yaml").read_text()
    assert text.count("push: false") == 1
    (root / "prefect.yaml").write_text(text.replace("push: false", "report: false\n      retries: 0"))
    with working(prefect, root, tmp_path_factory.mktemp("worker")):
        yield root
