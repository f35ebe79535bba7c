"""Where a run begins: it resumes its own checkpoint, and loses no other run's progress."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch

from mirasol.core.errors import MirasolError
from mirasol.training.checkpoint import ANYWAY, FINGERPRINT, FINISHED, AtomicCheckpointIO
from mirasol.training.config import ANSWER
from mirasol.training.resume import BEFORE, Checkpoints, Origin

OURS = {"settings": {"phase": {"lr": 0.1, "steps": 100}}, "code": "a"}
OTHER = {"settings": {"phase": {"lr": 0.2, "steps": 100}}, "code": "a"}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(ANSWER, raising=False)
    return tmp_path


def save(runs: Path, step: int, made_by: dict[str, Any] = OURS, **facts: Any) -> Path:
    path = Checkpoints(runs, 2).path(step)
    content = {"global_step": step, FINGERPRINT: made_by, FINISHED: False, ANYWAY: [], "w": torch.ones(3)}
    AtomicCheckpointIO().save_checkpoint(content | facts, path)
    return path


def origin(runs: Path, made_by: dict[str, Any] = OURS) -> Origin:
    return Checkpoints(runs, 2).origin("finetune", made_by)


def kept(runs: Path) -> dict[str, bytes]:
    return {path.relative_to(runs).as_posix(): path.read_bytes() for path in runs.rglob("*") if path.is_file()}


def test_no_checkpoint_begins_at_the_start(runs: Path) -> None:
    assert origin(runs) == Origin()


def test_the_last_checkpoint_of_the_same_run_is_resumed(runs: Path) -> None:
    for step in (9, 20, 100):
        save(runs, step)
    assert origin(runs) == Origin(100)


def test_a_damaged_last_checkpoint_leaves_the_one_before(runs: Path) -> None:
    save(runs, 10)
    save(runs, 20).write_bytes(b"half a file")
    found = origin(runs)
    assert found.step == 10
    assert "step-20.ckpt, which cannot be read" in found.notes[0]
    assert Checkpoints(runs, 2).steps() == [10]


def test_another_unfinished_run_is_refused_and_nothing_changes(runs: Path) -> None:
    save(runs, 20, OTHER)
    before = kept(runs)
    with pytest.raises(MirasolError, match=r"step 20 .*settings\.phase\.lr \(0\.2, now 0\.1\).*--resume-anyway"):
        origin(runs)
    assert kept(runs) == before


def test_resume_anyway_goes_on_and_remembers_it(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(runs, 20, OTHER)
    monkeypatch.setenv(ANSWER, "resume-anyway")
    found = origin(runs)
    assert found.step == 20
    assert found.anyway == [{"step": 20, "changed": ["settings.phase.lr (0.2, now 0.1)"]}]


@pytest.mark.parametrize(
    ("section", "key", "fits"),
    [("phase", "optimizer", False), ("phase", "keep", False), ("model", "width", False), ("model", "dropout", True)],
)
def test_what_does_not_fit_cannot_go_on(
    runs: Path, monkeypatch: pytest.MonkeyPatch, section: str, key: str, fits: bool
) -> None:
    save(runs, 20, {"settings": {section: {key: 1}}})
    monkeypatch.setenv(ANSWER, "resume-anyway")
    with contextlib.nullcontext() if fits else pytest.raises(MirasolError, match="does not fit this run"):
        assert origin(runs, {"settings": {section: {key: 2}}}).step == 20


def test_a_run_of_fewer_steps_cannot_go_on(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(runs, 20, {"settings": {"phase": {"steps": 40}}})
    monkeypatch.setenv(ANSWER, "resume-anyway")
    with pytest.raises(MirasolError, match="it is of step 20, the run ends at 10"):
        origin(runs, {"settings": {"phase": {"steps": 10}}})


def test_start_anew_keeps_the_other_run(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = save(runs, 20, OTHER).read_bytes()
    (runs / "curves.jsonl").write_text("{}\n")
    monkeypatch.setenv(ANSWER, "start-anew")
    assert origin(runs).step == 0
    assert kept(runs) == {f"{BEFORE}/checkpoints/step-20.ckpt": content, f"{BEFORE}/curves.jsonl": b"{}\n"}


def test_an_equal_run_resumes_whatever_the_answer(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries of a flow have the variable set, too."""
    save(runs, 20)
    monkeypatch.setenv(ANSWER, "start-anew")
    assert origin(runs).step == 20


@pytest.mark.parametrize(("step", "finished"), [(100, False), (60, True)])
def test_a_finished_run_makes_way(runs: Path, step: int, finished: bool) -> None:
    save(runs, step, OTHER, **{FINISHED: finished})
    found = origin(runs)
    assert found.step == 0
    assert "belongs to another run: settings.phase.lr" in found.notes[0]


def test_one_run_is_kept_aside(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ANSWER, "start-anew")
    for step in (20, 30):
        save(runs, step, OTHER)
        origin(runs)
    assert list(kept(runs)) == [f"{BEFORE}/checkpoints/step-30.ckpt"]


def test_an_answer_that_is_none_is_an_error(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ANSWER, "yes")
    with pytest.raises(MirasolError, match="expected resume-anyway or start-anew"):
        origin(runs)


def test_the_last_ones_stay_and_leftovers_of_a_kill_go(runs: Path) -> None:
    checkpoints = Checkpoints(runs, 2)
    for step in (9, 20, 100):
        save(runs, step)
        (checkpoints.folder / f"step-{step}.ckpt.d/rows-1").mkdir(parents=True)
    (checkpoints.folder / "step-120.ckpt.d/rows-1").mkdir(parents=True)
    (checkpoints.folder / ".step-120.ckpt.x.tmp").touch()
    checkpoints.tidy()
    names = {path.name for path in checkpoints.folder.iterdir()}
    assert names == {f"step-{step}.ckpt{end}" for step in (20, 100) for end in ("", ".d")}


def test_checkpoints_of_each_so_many_steps_stay_for_good() -> None:
    assert Checkpoints(Path(), 2, 30).staying([10, 20, 30, 40, 60, 70, 80]) == [80, 70, 60, 30]
    assert Checkpoints(Path(), 2).staying([10, 20, 30]) == [30, 20]


def test_a_skipped_checkpoint_goes_when_the_run_is_finished(runs: Path) -> None:
    checkpoints = Checkpoints(runs, 2)
    save(runs, 10)
    save(runs, 20).write_bytes(b"half a file")
    origin(runs)
    checkpoints.tidy()
    assert {path.name for path in checkpoints.folder.iterdir()} == {"step-10.ckpt", "step-20.unreadable"}
    checkpoints.tidy(finished=True)
    assert {path.name for path in checkpoints.folder.iterdir()} == {"step-10.ckpt"}


def test_a_skipped_checkpoint_goes_when_its_run_makes_way(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(runs, 10)
    save(runs, 20).write_bytes(b"half a file")
    origin(runs)
    monkeypatch.setenv(ANSWER, "start-anew")
    origin(runs, OTHER)
    assert [path.name for path in (runs / BEFORE / "checkpoints").iterdir()] == ["step-10.ckpt"]


def test_a_process_that_lacks_the_checkpoint_names_its_path(runs: Path) -> None:
    fault = Checkpoints(runs, 2).fault(Origin(20), OURS, OURS)
    assert str(runs / "checkpoints/step-20.ckpt") in fault
    assert "file system that all processes share" in fault


def test_a_process_that_runs_other_code_says_so(runs: Path) -> None:
    assert "code" in Checkpoints(runs, 2).fault(Origin(), OURS, OURS | {"code": "b"})


def test_a_process_with_the_checkpoint_begins(runs: Path) -> None:
    save(runs, 20)
    assert Checkpoints(runs, 2).fault(Origin(20), OURS, OURS) == ""
