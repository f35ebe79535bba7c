"""Accuracy on the val split while training, per question family.

One modality can starve the other without a trace in the loss; a family at chance shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from mirasol.model.batch import Batch
from mirasol.model.losses import text_loss
from mirasol.model.mirasol import Mirasol


def score_texts(model: Mirasol, batch: Batch) -> tuple[Tensor, Tensor]:
    """Score the answers by teacher forcing, without generation.

    Returns:
        Mean cross-entropy of each answer's tokens, float [B, Q], and whether each of them is the most likely one,
        bool [B, Q].
    """
    encoded = model.encode(batch)
    asked = batch.answer_mask[:, :, 1:]  # a token is predicted from the one before it
    hidden, _ = model.text(batch.tokens[:, :, :-1], model.text.memory_of(encoded.h, encoded.present))
    logits = model.text.head(hidden[asked])
    targets = batch.tokens[:, :, 1:][asked]
    text = asked.flatten(0, 1).nonzero()[:, 0]
    _, each = text_loss(logits, targets, text, batch.text_weight, 0.0)
    wrong = torch.zeros(batch.text_weight.numel(), dtype=torch.int64, device=targets.device)
    wrong.index_add_(0, text, (logits.argmax(-1) != targets).long())
    return each, (wrong == 0).view_as(each)


class Validation:
    """Scores a fixed part of the val split.

    Args:
        batches: the batches of process ``rank`` of ``world``: disjoint parts of the clips.
        families: family of each example id, at least one; the same in all processes.
    """

    def __init__(self, batches: Callable[[int, int], Iterable[Batch]], families: Mapping[str, str]) -> None:
        self.batches = batches
        self.families = families
        self.rows = {name: row for row, name in enumerate(sorted(set(families.values())))}

    def run(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        """Exact match, overall and per family, mean text loss, and the number of texts."""
        model = module.model
        assert isinstance(model, Mirasol)
        table = torch.zeros(len(self.rows), 3, dtype=torch.float64)  # texts, right ones, sum of losses
        model.eval()
        try:
            with torch.no_grad(), trainer.precision_plugin.val_step_context():
                for batch in self.batches(trainer.global_rank, trainer.world_size):
                    self._count(table, batch, *score_texts(model, batch.to(module.device)))
        finally:
            model.train()
        summed = trainer.strategy.reduce(table.to(module.device), reduce_op="sum")
        assert isinstance(summed, Tensor)
        return self._figures(summed.tolist())

    def _count(self, table: Tensor, batch: Batch, losses: Tensor, right: Tensor) -> None:
        for ids, *rows in zip(batch.example_ids, losses.tolist(), right.tolist(), strict=True):
            for example, loss, correct in zip(ids, *rows, strict=True):
                if example:
                    table[self.rows[self.families[example]]] += torch.tensor([1.0, correct, loss], dtype=torch.float64)

    def _figures(self, table: list[list[float]]) -> dict[str, Any]:
        counts = {name: table[row] for name, row in self.rows.items() if table[row][0]}
        families = {name: {"exact_match": right / n, "n": int(n)} for name, (n, right, _) in counts.items()}
        texts, right, loss = (sum(column) for column in zip(*table, strict=True))
        total = max(texts, 1)
        return {"exact_match": right / total, "text": loss / total, "n": int(texts), "families": families}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested figures under names with slashes, as TensorBoard takes them, without ``None``."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}/")
        elif value is not None:
            found[prefix + name] = value
    return found
