"""Where the curves go besides `curves.jsonl`: TensorBoard, DVCLive, Weights & Biases or MLflow (decision 0067).

Each writes into the run's folder, and none connects to a server unless its environment variables say so.
"""

from __future__ import annotations

import importlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from mirasol.core.errors import MirasolError, install
from mirasol.core.files import atomic_write
from mirasol.training.config import PhaseRun
from mirasol.training.curves import CURVES, SPEED, read_lines
from mirasol.training.strategy import is_leader
from mirasol.training.validation import flat

PROJECT = "mirasol"  # of W&B and MLflow, where no variable names one
NEEDED = ("dvclive", "wandb", "mlflow")  # packages, each named as its extra and its choice


def make_logger(run: PhaseRun, start: int) -> Logger | bool:
    """The logger that `training.logger` names, for a run from step ``start`` on; ``False`` for `none`.

    Raises:
        MirasolError: its package is missing, with the command that installs it.
    """
    name, folder = run.training.logger, run.paths.runs
    if name in NEEDED:
        _require(name)
    match name:
        case "tensorboard":  # purge_step: it drops its events after the checkpoint
            return TensorBoardLogger(folder, name="", version="tensorboard", purge_step=start + 1)
        case "dvclive":
            return LiveLogger(folder, start)
        case "wandb":
            return _wandb(run, start)
        case "mlflow":
            return _mlflow(run, start)
    return False


class LiveLogger(Logger):
    """DVCLive in `dvclive/` of the run's folder, and no experiment or dvc.yaml: the pipeline has both.

    A resumed run writes the lines up to its checkpoint again, so that none appears twice. DVCLive's own logger may
    belong to the package `lightning`, whose classes pytorch-lightning refuses.
    """

    def __init__(self, folder: Path, start: int) -> None:
        super().__init__()
        self.folder, self.start = folder, start
        self.live: Any = None

    @property
    def name(self) -> str:
        return "dvclive"

    @property
    def version(self) -> int:
        return 0

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self.live is None:
            self._begin()
        self._write(metrics, step or 0)
        self.live.make_summary()

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Parameters are DVC's already."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self.live is not None:
            self.live.end()

    def _begin(self) -> None:
        from dvclive import Live

        self.live = Live(str(self.folder / "dvclive"), save_dvc_exp=False, dvcyaml=False)
        speed = {line["step"]: line for line in read_lines(self.folder / SPEED)}
        for line in read_lines(self.folder / CURVES):
            if line["step"] <= self.start:
                self._write(flat(line | speed.get(line["step"], {})), line["step"])

    def _write(self, metrics: Mapping[str, float], step: int) -> None:
        self.live.step = step
        for name, value in metrics.items():
            if name != "step":
                self.live.log_metric(name, value)


def _wandb(run: PhaseRun, start: int) -> Logger:
    """Offline unless ``WANDB_MODE`` says otherwise. A resumed run goes on in its run, which takes no step twice."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    importlib.import_module("wandb").finish()  # the run of an earlier phase in this process, which would go on
    folder = run.paths.runs
    number = _kept(folder / "wandb-run", start) or secrets.token_hex(4)
    _keep(folder / "wandb-run", number)
    return WandbLogger(
        run.name, folder, id=number, project=os.environ.get("WANDB_PROJECT", PROJECT),
        mode=os.environ.get("WANDB_MODE", "offline"),
    )  # fmt: skip


def _mlflow(run: PhaseRun, start: int) -> Logger:
    """In a database of the run's folder unless ``MLFLOW_TRACKING_URI`` names a place."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    folder = run.paths.runs
    place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    known = _kept(folder / "mlflow-run", start)
    logger = MLFlowLogger(experiment, run.name, place, artifact_location=str(folder / "mlflow"), run_id=known)
    if known is None and is_leader():
        folder.mkdir(parents=True, exist_ok=True)
        _keep(folder / "mlflow-run", str(logger.run_id))
    return logger


def _kept(path: Path, start: int) -> str | None:
    """The run that a resumed one goes on in."""
    return path.read_text(encoding="utf-8").strip() if start and path.is_file() else None


def _keep(path: Path, number: str) -> None:
    if is_leader():
        with atomic_write(path, "w") as file:
            file.write(number + "\n")


def _require(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise MirasolError(
            f"training.logger is {name}, whose package cannot be imported ({error}): {install(name)}, "
            "or choose tensorboard or none"
        ) from error
