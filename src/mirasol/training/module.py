"""One training phase as a LightningModule: losses, optimiser, figures for the curves. It opens no files."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor

from mirasol.core.errors import MirasolError
from mirasol.model.batch import Batch
from mirasol.model.losses import LOSSES, Objective, loss_counts
from mirasol.model.mirasol import Mirasol
from mirasol.training.config import PhaseConfig
from mirasol.training.ema import Ema
from mirasol.training.optim import build_optimizer, learning_rate
from mirasol.training.parallel import clip_gradients, last_backward_only, shard


def step_seed(seed: int, step: int, part: int) -> int:
    """The seed of dropout in a part of a step: a resumed run needs no state of a random generator."""
    digest = hashlib.sha256(f"{seed}/{step}/{part}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def reseed(seed: int, device: torch.device) -> None:
    """Seed torch for work on ``device``.

    Before CUDA has started, ``torch.manual_seed`` queues the seed with a stack trace for each kind of device: a
    millisecond and a leak in every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


class PhaseModule(pl.LightningModule):
    """Trains ``model`` by the settings of one phase.

    A step is one call of :meth:`training_step`, whatever the number of micro-batches and processes: all of them divide
    their sums by the counts of the whole step (docs/decisions/0070).

    After each step ``figures`` holds 0-dim tensors for the curves: the loss and its parts, the state of x (a latent
    that collapses has a low loss), the norm of the gradient. They stay on the device: reading one makes a GPU wait.
    The state of x is a mean over micro-batches and processes, so it depends a little on how a step is cut.
    """

    def __init__(self, model: Mirasol, config: PhaseConfig, *, seed: int, fused: bool) -> None:
        super().__init__()
        self.automatic_optimization = False  # a step is several backward passes
        self.model, self.config, self.seed, self.fused = model, config, seed, fused
        self.objective = Objective(
            text=config.text_weight, latent=config.latent_weight, video=config.video_weight,
            audio=config.audio_weight, latent_target_gradient=config.latent_target_gradient,
            label_smoothing=config.label_smoothing,
        )  # fmt: skip
        self.figures: dict[str, Tensor] = {}
        self.ema = Ema(model, config.ema) if config.ema else None

    def training_step(self, parts: list[Batch], batch_idx: int) -> None:
        """One optimiser step on the micro-batches ``parts`` of this process."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        totals = self.trainer.strategy.reduce(
            torch.stack([loss_counts(part) for part in parts]).sum(0), reduce_op="sum"
        )
        assert isinstance(totals, Tensor)
        found = []
        world, rank = self.trainer.world_size, self.trainer.global_rank
        for number, part in enumerate(parts):
            reseed(step_seed(self.seed, self.global_step, number * world + rank), self.device)
            with last_backward_only(self.trainer.strategy.model, self.model, last=number == len(parts) - 1):
                found.append(self._backward(part, totals))
        self.figures = {name: torch.stack([each[name].double() for each in found]).sum(0) for name in found[0]}
        for name in self.figures.keys() - {"loss", *LOSSES}:
            self.figures[name] /= len(parts)
        if self.objective.text and not any(part.tokens.shape[1] for part in parts):
            for parameter in self.model.text.parameters():  # as for one of several processes: its gradient is 0
                if parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.global_step - 1)

    def _backward(self, part: Batch, totals: Tensor) -> dict[str, Tensor]:
        """Add the gradient of one micro-batch; returns its figures."""
        world = self.trainer.world_size  # processes average their gradients and figures
        outputs = self.model(part, self.objective, totals)
        if not any(outputs[name].requires_grad for name in LOSSES if name in outputs):
            raise MirasolError(
                f"nothing would learn: no loss of weight above 0 depends on the parts that train (trained: "
                f"{self.config.trained}); change `trained` or the weights of the losses, or give data that they need"
            )
        loss = self.objective.weighted(outputs) * world
        with torch.autocast(self.device.type, enabled=False):
            self.manual_backward(loss)
        figures = {name: value.detach() for name, value in outputs.items() if value.ndim == 0}
        return {"loss": loss.detach(), **{n: v * world if n in LOSSES else v for n, v in figures.items()}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Scale the gradient down to ``clip_norm``, and keep its norm before that for the curves."""
        learning = [p for group in optimizer.param_groups for p in group["params"]]
        self.figures["grad_norm"] = clip_gradients(learning, self.config.clip_norm)

    def on_train_batch_start(self, batch: list[Batch], batch_idx: int) -> None:
        """Set the rate of this step: a function of the step, so checkpoints need no scheduler state."""
        rate = learning_rate(self.global_step, self.config)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def configure_model(self) -> None:
        """Shard the model, once the processes know each other."""
        mesh = getattr(self.trainer.strategy, "mesh", None)  # of ShardedStrategy
        if mesh is not None:
            shard(self.model, mesh, str(self.trainer.precision))

    def evaluated(self) -> contextlib.AbstractContextManager[None]:
        """The model has the weights to evaluate and to export meanwhile."""
        return contextlib.nullcontext() if self.ema is None else self.ema.applied()

    def finish(self) -> None:
        """After the last step: the model's weights are those to export."""
        if self.ema is not None:
            self.ema.swap()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.ema is not None:
            checkpoint["ema"] = self.ema.state("model.")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.ema is not None:
            self.ema.restore(checkpoint["ema"], "model.")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self.model, self.config, fused=self.fused)
