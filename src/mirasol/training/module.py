"""One training phase as a LightningModule: losses, optimiser, figures for the curves. It opens no files."""

from __future__ import annotations

import hashlib

import pytorch_lightning as pl
import torch
from torch import Tensor

from mirasol.model.batch import Batch
from mirasol.model.mirasol import Mirasol
from mirasol.training.config import PhaseConfig
from mirasol.training.optim import build_optimizer, learning_rate

LOSSES = ("text", "latent", "video", "audio")  # audio where the model reconstructs it


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of dropout and masks in one step: a resumed run needs no state of a random generator, and the number of
    loader processes changes no mask."""
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
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

    After each step ``figures`` holds 0-dim tensors for the curves: the loss and its parts, the state of x (a latent
    that collapses has a low loss), the norm of the gradient. They stay on the device: reading one makes a GPU wait.
    """

    def __init__(self, model: Mirasol, config: PhaseConfig, *, seed: int, fused: bool) -> None:
        super().__init__()
        self.model, self.config, self.seed, self.fused = model, config, seed, fused
        self.figures: dict[str, Tensor] = {}

    def weighted(self, losses: dict[str, Tensor]) -> Tensor:
        """The loss of the phase (P 3.5): text, latent and reconstruction, each with its weight."""
        weighed = (getattr(self.config, f"{name}_weight") * losses[name] for name in LOSSES if name in losses)
        return sum(weighed, start=torch.zeros(()))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        reseed(step_seed(self.seed, self.global_step, self.global_rank), self.device)
        outputs = self.model(batch, label_smoothing=self.config.label_smoothing)
        loss = self.weighted(outputs)
        figures = {name: value.detach() for name, value in outputs.items() if value.ndim == 0}
        self.figures = {"loss": loss.detach(), **figures}
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Scale the gradient down to ``clip_norm``, and keep its norm before that for the curves."""
        learning = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        bound = self.config.clip_norm or float("inf")
        self.figures["grad_norm"] = torch.nn.utils.clip_grad_norm_(learning, bound).detach()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the rate of this step: a function of the step, so checkpoints need no scheduler state."""
        rate = learning_rate(self.global_step, self.config)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self.model, self.config, fused=self.fused)
