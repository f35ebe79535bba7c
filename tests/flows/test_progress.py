"""The progress of a stage on its run's page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.scratch import PARAMS

Shown = list[tuple[float, str | None]]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """The artifact's percentages and texts, in a place of the server."""
    from flows import progress

    found: Shown = []

    def create(percent: float, key: str, description: str) -> str:
        assert key == "progress-audio-pretrain"
        found.append((percent, description))
        return "id"

    monkeypatch.setattr(progress, "create_progress_artifact", create)
    monkeypatch.setattr(
        progress, "update_progress_artifact", lambda _, percent, description: found.append((percent, description))
    )
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time."""
    from flows import progress

    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, seconds)


def test_lines_move_the_artifact_now_and_then_and_at_the_end(shown: Shown, clock: Callable[[float], None]) -> None:
    from flows.progress import StageProgress

    progress = StageProgress("audio_pretrain")
    progress.line("resumes at step 3")
    progress.line("audio_pretrain val: 1/2 clips")
    for second, done in ((1, "250"), (5, "500"), (20, "750"), (21, "1,000")):
        clock(second)
        progress.line(f"{done}/1,000 clips 16/s")
    progress.end()
    assert shown == [(25.0, "250/1,000 clips 16/s"), (75.0, "750/1,000 clips 16/s"), (100.0, "1,000/1,000 clips 16/s")]


def test_a_server_that_is_gone_does_not_fail_the_stage(
    shown: Shown, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import progress

    tries = []

    def create(*_: Any, **__: Any) -> None:
        tries.append(1)
        raise httpx.ConnectError("gone")

    monkeypatch.setattr(progress, "create_progress_artifact", create)
    stage = progress.StageProgress("audio_pretrain")
    for second in (0, 20, 400):
        clock(second)
        stage.line(f"{second}/400 clips")
    assert len(tries) == 2


def test_a_run_shows_the_progress_of_its_stages(prefect: Any, deployed: Path) -> None:
    (deployed / "params.yaml").write_text(PARAMS.replace("first: {x: 1}", "first: {x: 5}"))
    prefect.command("prefect", "deployment", "run", "pipeline/nightly", "--watch", cwd=deployed)
    found = {a["key"]: a for a in prefect.read("/artifacts", artifacts={"type": {"any_": ["progress"]}})}
    assert {key: a["data"] for key, a in found.items()} == {f"progress-{n}": 100 for n in ("first", "second", "third")}
    assert found["progress-first"]["description"] == "2/2 clips"
    assert found["progress-first"]["task_run_id"]
