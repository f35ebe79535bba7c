"""`training.logger`: each choice shows the curves once, a resumed run included."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from support.training import PHASE, TRAINING, train

from mirasol.core.errors import MirasolError
from mirasol.media.clip import ClipSpec
from mirasol.training.config import PhaseRun, RunPaths, TrainingConfig
from mirasol.training.curves import CURVES, SPEED, CurveFile
from mirasol.training.loggers import make_logger


class FakeLive:
    """What the logger uses of ``dvclive.Live``; the lines lie in ``made``."""

    made: ClassVar[list[FakeLive]] = []

    def __init__(self, folder: str, save_dvc_exp: bool, dvcyaml: bool) -> None:
        assert not save_dvc_exp and not dvcyaml
        self.folder, self.step, self.ended = folder, 0, False
        self.lines: list[tuple[int, str, float]] = []
        FakeLive.made.append(self)

    def log_metric(self, name: str, value: float) -> None:
        self.lines.append((self.step, name, value))

    def make_summary(self) -> None:
        pass

    def end(self) -> None:
        self.ended = True


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> list[FakeLive]:
    module: Any = ModuleType("dvclive")
    module.Live, FakeLive.made = FakeLive, []
    monkeypatch.setitem(sys.modules, "dvclive", module)
    return FakeLive.made


def run_of(folder: Path, logger: str) -> PhaseRun:
    training = TrainingConfig(threads=1, accelerator="cpu", logger=logger)
    return PhaseRun("finetune", PHASE, training, ClipSpec(), RunPaths(*[folder] * 5))


@pytest.mark.parametrize("name", ["dvclive", "wandb", "mlflow"])
def test_a_missing_package_is_named_with_its_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MirasolError, match=rf"training\.logger is {name}.*`pip install 'mirasol-av\[{name}\]'`"):
        make_logger(run_of(tmp_path, name), 0)


def test_none_logs_nowhere(world: Path, tmp_path: Path) -> None:
    train(world, tmp_path, steps=1, logger="none")
    assert {path.name for path in (tmp_path / "runs" / "finetune").iterdir()} == {CURVES, SPEED, "checkpoints"}


def test_dvclive_gets_the_lines_of_the_curves(world: Path, tmp_path: Path, live: list[FakeLive]) -> None:
    train(world, tmp_path, logger="dvclive")
    (made,) = live
    assert made.folder == str(tmp_path / "runs" / "finetune" / "dvclive") and made.ended
    assert {step for step, _, _ in made.lines} == {2, 4}
    assert {"loss", "val/exact_match", "clips_per_second", "wait_share"} <= {name for _, name, _ in made.lines}


def test_a_resumed_run_shows_each_step_once(tmp_path: Path, live: list[FakeLive]) -> None:
    curves, speed = CurveFile(tmp_path / CURVES), CurveFile(tmp_path / SPEED)
    for step in (10, 20, 30):
        curves.append({"step": step, "loss": 1.0, "text": None}, sync=False)
        speed.append({"step": step, "clips_per_second": 5.0}, sync=False)
    logger: Any = make_logger(run_of(tmp_path, "dvclive"), 20)
    logger.log_metrics({"loss": 0.5}, 30)
    assert [line for line in live[0].lines if line[1] == "loss"] == [
        (10, "loss", 1.0),
        (20, "loss", 1.0),
        (30, "loss", 0.5),
    ]
    assert (20, "clips_per_second", 5.0) in live[0].lines


def test_the_real_dvclive_writes_into_the_runs_folder(world: Path, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("dvclive")
    monkeypatch.chdir(tmp_path)
    train(world, tmp_path, logger="dvclive")
    rows = (tmp_path / "runs/finetune/dvclive/plots/metrics/loss.tsv").read_text().splitlines()
    assert [row.split("\t")[0] for row in rows] == ["step", "2", "4"]
    assert not (tmp_path / "dvc.yaml").exists()


@pytest.mark.parametrize(("name", "place"), [("wandb", "wandb"), ("mlflow", "mlflow.db")])
def test_the_real_ones_stay_offline_and_resume(
    name: str, place: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(name)
    for variable in ("WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    train(world, tmp_path, logger=name)
    runs = tmp_path / "runs" / "finetune"
    number = (runs / f"{name}-run").read_text()
    assert (runs / place).exists()
    resumed: Any = make_logger(run_of(runs, name), 4)
    resumed.log_metrics({"loss": 0.5}, 6)
    resumed.finalize("success")
    assert (runs / f"{name}-run").read_text() == number


def test_another_logger_resumes_the_same_run(world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(world, tmp_path)
    train(world, tmp_path, logger="none")
    assert "resumes at step 4" in capfd.readouterr().err
    assert TRAINING.logger == "tensorboard"
