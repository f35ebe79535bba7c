"""Curves, evaluations, checkpoints and the progress bar of a phase."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from mirasol.core.errors import MirasolError
from mirasol.core.progress import Progress
from mirasol.model.batch import Batch
from mirasol.training.best import BestWeights
from mirasol.training.checkpoint import ANYWAY, FINGERPRINT, FINISHED
from mirasol.training.config import PhaseRun
from mirasol.training.curves import CURVES, SPEED, CurveFile, rounded
from mirasol.training.module import PhaseModule
from mirasol.training.optim import learning_rate
from mirasol.training.ranks import Ranks
from mirasol.training.resume import Checkpoints, Origin
from mirasol.training.saving import Saving
from mirasol.training.speed import Stopwatch, peak_memory, step_flops
from mirasol.training.stopping import STATUS
from mirasol.training.validation import Validation, flat

LOG_EVERY = 10  # steps of a curve's line: their mean
SHOWN = {"loss": "loss", "text": "text loss"}  # figures of a line in the progress display, with their labels


class Window:
    """Means over the steps since the last line of the curves, and the check that all figures are finite."""

    def __init__(self, watched: tuple[str, ...]) -> None:
        self.watched = watched
        self.names: list[str] = []
        self.sums: Tensor | None = None  # float64, on the device
        self.shared: list[list[float]] = []  # those of each process, for a checkpoint
        self.count = 0
        self.recent: list[tuple[int, list[str], Tensor]] = []  # step, clip keys, figures that must be finite

    def add(self, step: int, keys: list[str], figures: dict[str, Tensor]) -> None:
        """Add the 0-dim figures of one step without waiting for the device."""
        values = torch.stack([value.double() for value in figures.values()])
        if self.sums is None:
            self.names, self.sums = list(figures), torch.zeros_like(values)
        self.sums += values
        self.count += 1
        self.recent.append((step, keys, torch.stack([figures[name].double() for name in self.watched])))

    def check(self, phase: str) -> None:
        """Raise :class:`MirasolError` if a watched figure since the last check is NaN or infinite."""
        table = torch.stack([values for _, _, values in self.recent]).tolist() if self.recent else []
        for (step, keys, _), values in zip(self.recent, table, strict=True):
            for name, value in zip(self.watched, values, strict=True):
                if not math.isfinite(value):
                    raise MirasolError(
                        f"{phase}: {name} is {value} at step {step}, expected a finite number; "
                        f"the step's clips: {', '.join(keys)}. Lower {phase}.lr, raise {phase}.warmup, or look at "
                        "these clips; then run again: the last checkpoint is from before this step"
                    )
        self.recent.clear()

    def means(self, trainer: pl.Trainer) -> dict[str, float | None]:
        """Mean of each figure over all processes (``None`` where it is not finite); the next window begins."""
        assert self.sums is not None
        values = trainer.strategy.reduce(self.sums / self.count, reduce_op="mean")
        self.sums, self.count = None, 0
        assert isinstance(values, Tensor)
        return {n: v if math.isfinite(v) else None for n, v in zip(self.names, values.tolist(), strict=True)}

    def share(self, trainer: pl.Trainer) -> None:
        """Tell the sums to all processes, one of which writes the checkpoint; every process calls it."""
        sums = None if self.sums is None else trainer.strategy.all_gather(self.sums)
        self.shared = [] if sums is None else sums.reshape(-1, len(self.names)).tolist()

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint between two lines."""
        return {"names": self.names, "sums": self.shared, "count": self.count}

    def restore(self, state: dict[str, Any], trainer: pl.Trainer) -> None:
        """Set the values that :meth:`state` returned; for another number of processes each takes the mean."""
        self.names, self.count = list(state["names"]), int(state["count"])
        if not state["sums"]:
            return
        rows = torch.tensor(state["sums"], dtype=torch.float64, device=trainer.strategy.root_device)
        self.sums = rows[trainer.global_rank] if len(rows) == trainer.world_size else rows.mean(0)


class Recorder(pl.Callback):
    """Writes the curves, evaluates, and saves checkpoints, in an order that survives a kill at any point.

    The line of a step is on the disk before the step's checkpoint, and a resumed run drops the lines after its
    checkpoint. So the curves hold each logged step once.
    """

    def __init__(
        self,
        run: PhaseRun,
        validation: Validation,
        progress: Progress,
        made_by: dict[str, Any],
        origin: Origin,
        ranks: Ranks,
    ) -> None:
        """``made_by``: the run's fingerprint. ``origin``: where it begins."""
        folder, training = run.paths.runs, run.training
        self.phase, self.validation, self.progress = run.name, validation, progress
        self.made_by, self.origin, self.ranks, self.limit = made_by, origin, ranks, training.timeout
        self.checkpoints = Checkpoints(folder, training.keep_checkpoints, training.keep_every)
        self.saving = Saving(ranks)
        self.curves, self.speed = CurveFile(folder / CURVES), CurveFile(folder / SPEED)
        amp = training.precision == "16-mixed"  # skips steps with infinite gradients by itself
        self.window = Window(("loss",) if amp else ("loss", "grad_norm"))
        self.best = BestWeights(folder, run.config) if run.config.keep == "best" else None
        self.finished = False
        self.restored: dict[str, Any] | None = None
        self.watch: Stopwatch | None = None  # from the start of training on

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint |= {FINGERPRINT: self.made_by, FINISHED: self.finished, ANYWAY: self.origin.anyway}

    def state_dict(self) -> dict[str, Any]:
        return self.window.state() | ({} if self.best is None else {"best": self.best.state()})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = state_dict
        if self.best is not None:
            self.best.restore(state_dict["best"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.restored is not None:
            self.window.restore(self.restored, trainer)
        if self.best is not None:
            trainer.should_stop = self.best.exhausted  # a run that had stopped is not trained further
        if trainer.is_global_zero:
            if self.best is not None:
                self.best.tidy(sys.maxsize, self.best.named)
            self.curves.start(self.origin.step)
            self.speed.start(self.origin.step)
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        self.watch = Stopwatch(pl_module.device)
        self.ranks.step, self.ranks.doing = self.origin.step, "waits for data"
        self.ranks.stopping.begin(trainer.world_size, self.limit)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.ranks.stopping.end()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.saving.finish()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: list[Batch], batch_idx: int
    ) -> None:
        assert self.watch is not None
        self.ranks.doing = "computes a step"
        self.watch.step_begins()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: list[Batch], batch_idx: int
    ) -> None:
        assert isinstance(pl_module, PhaseModule) and self.watch is not None
        step, config = trainer.global_step, pl_module.config
        self.window.add(step, [key for part in batch for key in part.keys], pl_module.figures)
        self.watch.step_ends()
        self.saving.check()
        milestone = step % config.checkpoint_every == 0 or step == config.steps
        shown: dict[str, float | str] = {}
        if milestone or step % LOG_EVERY == 0:
            shown = self._log(trainer, pl_module, batch, evaluate=milestone)
        stop = self.ranks.stopping.agreed()
        if milestone or stop:
            self._save(trainer, step, last=step == config.steps, stop=stop)
        self.progress.advance(config.batch_size, **shown)
        if self.window.count == 0:  # after a line
            self.watch.resume()
        if stop:
            raise SystemExit(STATUS)
        self.ranks.step, self.ranks.doing = step, "waits for data"

    def _save(self, trainer: pl.Trainer, step: int, *, last: bool, stop: bool) -> None:
        """Save ``step`` beside the next ones; before an end, wait until all processes have."""
        self.ranks.step, self.ranks.doing = step, "saves a checkpoint"
        self.saving.wait()
        self.window.check(self.phase)
        self.window.share(trainer)
        self.finished = last or (self.best is not None and self.best.exhausted)
        if self.best is not None:
            self.best.saved(step, self.checkpoints.staying)
        if trainer.is_global_zero:
            named = None if self.best is None else self.best.named
            self.saving.after = functools.partial(self._tidy, step, named, finished=self.finished)
        trainer.save_checkpoint(self.checkpoints.path(step), storage_options=self.saving)
        if self.finished or stop:
            self.saving.wait()
            trainer.strategy.barrier("the checkpoint is written")
        if self.best is not None and self.best.exhausted and not trainer.should_stop:
            trainer.should_stop = True
            if trainer.is_global_zero:
                reason = f"no better evaluation since step {self.best.step}"
                print(f"[{self.phase}] stops at step {step}: {reason}", file=sys.stderr)

    def _tidy(self, step: int, named: Mapping[int, int] | None, *, finished: bool) -> None:
        """The checkpoint of ``step`` is in place, which names the best weights ``named``; in the saving thread."""
        self.checkpoints.tidy(finished=finished)
        if self.best is not None and named is not None:
            self.best.tidy(step, named)

    def _log(self, trainer: pl.Trainer, module: PhaseModule, parts: list[Batch], *, evaluate: bool) -> dict[str, Any]:
        """Write the line of this step; returns the figures for the progress bar."""
        step = trainer.global_step
        self.window.check(self.phase)
        means = rounded(self.window.means(trainer))
        line: dict[str, Any] = means | {"step": step, "lr": learning_rate(step - 1, module.config)}
        speed = self._measure(trainer, module, parts)
        if evaluate:
            self.ranks.step, self.ranks.doing = step, "evaluates"
            line["val"] = rounded(self.validation.run(trainer, module))
            if self.best is not None:
                self.best.offer(step, line["val"], module, leader=trainer.is_global_zero)
        if trainer.is_global_zero:
            self.curves.append(line, sync=evaluate)  # the checkpoint comes next
            self.speed.append({"step": step} | speed, sync=False)
        for logger in trainer.loggers:
            logger.log_metrics({**flat(line), **speed}, step)
        shown = {label: line[name] for name, label in SHOWN.items() if line.get(name) is not None}
        if evaluate and "exact_match" in line["val"]:
            shown["val right answers"] = f"{100 * line['val']['exact_match']:.1f} %"
        return shown | {"waits for data": f"{100 * speed['wait_share']:.0f} %"}

    def _measure(self, trainer: pl.Trainer, module: PhaseModule, parts: list[Batch]) -> dict[str, float]:
        """The speed of the steps since the last line, over all processes."""
        assert self.watch is not None
        seconds, waits = self.watch.read()
        mine = torch.tensor([seconds, waits, peak_memory(module.device) / 2**30], device=module.device)
        every = trainer.strategy.all_gather(mine)
        config = module.config
        reconstruct = bool(config.video_weight or config.audio_weight)
        flops = sum(step_flops(module.model, part, reconstruct=reconstruct) for part in parts) if self.watch.peak else 0
        return self.watch.line(every, config.batch_size, flops)
