"""Accuracy on the val split while training, per question family.

One modality can starve the other without a trace in the loss; a family at chance shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from mirasol.model.batch import Batch
from mirasol.model.losses import LOSSES, Objective, loss_counts, text_loss
from mirasol.model.mirasol import Mirasol
from mirasol.training.module import PhaseModule
from mirasol.training.parallel import any_process, gathered

NOTHING: dict[str, str] = {}


def score_texts(model: Mirasol, batch: Batch) -> tuple[Tensor, Tensor]:
    """Score the answers by teacher forcing, without generation.

    Returns:
        Mean cross-entropy of each answer's tokens, float [B, Q], and whether each of them is the most likely one,
        bool [B, Q].
    """
    logits, targets = model.answers(batch, model.encode(batch))
    _, each = text_loss(logits, targets.tokens, targets.texts, batch.text_weight, 0.0)
    wrong = torch.zeros(batch.text_weight.numel(), dtype=torch.int64, device=logits.device)
    wrong.index_add_(0, targets.texts, (logits.argmax(-1) != targets.tokens).long())
    return each, (wrong == 0).view_as(each)


class Validation:
    """Scores a fixed part of the val split.

    Args:
        batches: the batches of process ``rank`` of ``world``: disjoint parts of the clips.
        families: family of each example id, at least one; the same in all processes.
        earlier: family of each example id of the tasks of phases before, which count for themselves alone.
    """

    def __init__(
        self,
        batches: Callable[[int, int], Iterable[Batch]],
        families: Mapping[str, str],
        earlier: Mapping[str, str] = NOTHING,
    ) -> None:
        self.batches = batches
        self.families = {**earlier, **families}
        self.rows = {name: row for row, name in enumerate(sorted(set(self.families.values())))}
        self.own = {self.rows[name] for name in families.values()}

    def run(self, trainer: pl.Trainer, module: PhaseModule) -> dict[str, Any]:
        """Exact match, mean text loss and number of texts, of the phase's own tasks and of each family."""
        model = module.model
        table = torch.zeros(len(self.rows), 3, dtype=torch.float64)  # texts, right ones, sum of losses
        model.eval()
        try:
            with torch.no_grad(), trainer.precision_plugin.val_step_context(), module.evaluated():
                for batch, new in self._in_step(trainer, sharded=isinstance(model, FSDPModule)):
                    scores = gathered(model, score_texts, batch.to(module.device))
                    if new:
                        self._count(table, batch, *scores)
        finally:
            model.train()
        summed = trainer.strategy.reduce(table.to(module.device), reduce_op="sum")
        assert isinstance(summed, Tensor)
        return self._figures(summed.tolist())

    def _in_step(self, trainer: pl.Trainer, *, sharded: bool) -> Iterator[tuple[Batch, bool]]:
        """This process' batches, and that they are new.

        The processes of a sharded model compute together: one without more batches repeats one until all are done.
        """
        rank, world = trainer.global_rank, trainer.world_size
        batches, last = iter(self.batches(rank, world)), None
        while True:
            batch = next(batches, None)
            if not (any_process(batch is not None, trainer.strategy.root_device) if sharded else batch is not None):
                return
            last = batch or last or next(iter(self.batches(0, world)))
            yield last, batch is not None

    def _count(self, table: Tensor, batch: Batch, losses: Tensor, right: Tensor) -> None:
        for ids, *rows in zip(batch.example_ids, losses.tolist(), right.tolist(), strict=True):
            for example, loss, correct in zip(ids, *rows, strict=True):
                if example:
                    table[self.rows[self.families[example]]] += torch.tensor([1.0, correct, loss], dtype=torch.float64)

    def _figures(self, table: list[list[float]]) -> dict[str, Any]:
        counts = {name: table[row] for name, row in self.rows.items() if table[row][0]}
        families = {
            name: {"exact_match": right / n, "text": loss / n, "n": int(n)} for name, (n, right, loss) in counts.items()
        }
        own = [row for number, row in enumerate(table) if number in self.own]
        texts, right, loss = (sum(column) for column in zip(*own, strict=True))
        total = max(texts, 1)
        return {"exact_match": right / total, "text": loss / total, "n": int(texts), "families": families}


class ClipValidation(Validation):
    """The losses of the aligned model on a fixed part of the val split, where no text can be scored.

    Args:
        batches: the batches of process ``rank`` of ``world``: disjoint parts of the clips; perhaps none at all.
    """

    def __init__(self, batches: Callable[[int, int], Iterable[Batch]]) -> None:
        super().__init__(batches, {})

    def run(self, trainer: pl.Trainer, module: PhaseModule) -> dict[str, Any]:
        """The mean of each loss that the phase has, and the number of clips; empty without clips."""
        model = module.model
        table = torch.zeros(len(LOSSES) + 1, 2, dtype=torch.float64)  # sum and divisor of each loss, then clips
        model.eval()
        try:
            with torch.no_grad(), trainer.precision_plugin.val_step_context(), module.evaluated():
                for batch, new in self._in_step(trainer, sharded=isinstance(model, FSDPModule)):
                    sums = gathered(model, _sums, batch.to(module.device), module.objective)
                    if new:
                        counts = dict(zip(LOSSES, loss_counts(batch).tolist(), strict=True))
                        rows = [[float(sums[name]), counts[name]] if name in sums else [0.0, 0.0] for name in LOSSES]
                        table += torch.tensor([*rows, [len(batch.keys), 1.0]], dtype=torch.float64)
        finally:
            model.train()
        summed = trainer.strategy.reduce(table.to(module.device), reduce_op="sum")
        assert isinstance(summed, Tensor)
        *losses, (clips, _) = summed.tolist()
        found = {name: total / n for name, (total, n) in zip(LOSSES, losses, strict=True) if n}
        return {**found, "clips": int(clips)} if clips else {}


def _sums(model: Mirasol, batch: Batch, objective: Objective) -> dict[str, Tensor]:
    """The losses of ``batch`` before they are divided by their counts."""
    return model.forward(batch, objective, torch.ones(len(LOSSES), dtype=torch.float64, device=batch.video.device))


def forgotten(before: Mapping[str, Any], now: Mapping[str, Any], tasks: Iterable[str]) -> dict[str, float]:
    """The relative growth of the text loss of each of ``tasks`` between two results of :meth:`Validation.run`."""
    old, new = before.get("families", {}), now.get("families", {})
    return {t: new[t]["text"] / old[t]["text"] - 1 for t in tasks if t in new and old.get(t, {}).get("text")}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested figures under names with slashes, as TensorBoard takes them, without ``None``."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}/")
        elif value is not None:
            found[prefix + name] = value
    return found
