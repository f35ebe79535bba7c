"""The speed of training between two lines of the curves: rate, waiting for data, memory, MFU, the slowest process.

Nothing here makes a GPU wait: events mark its steps, and are read once a line has waited for the figures anyway.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from torch import Tensor

from mirasol.model.batch import Batch, text_targets
from mirasol.model.mirasol import Mirasol
from mirasol.model.sizes.accounting import forward_flops
from mirasol.model.sizes.cards import peak_tflops

ENCODERS = ("video_tubes", "vit", "audio")
# Of each part of `forward_flops`: its modules, and those before it, to which gradients go back through it.
MODULES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "tubes": (("video_tubes",), ()),
    "video ViT": (("vit",), ("video_tubes",)),
    "audio": (("audio", "vit"), ()),
    "combiner": (("combiner",), ENCODERS),
    "latent": (("latent",), (*ENCODERS, "combiner")),
    "reconstruction": (("reconstruction", "audio_reconstruction"), (*ENCODERS, "combiner", "latent")),
    "text": (("text",), (*ENCODERS, "combiner", "latent")),
}


def step_flops(model: Mirasol, batch: Batch, *, reconstruct: bool = True) -> int:
    """Operations of one training step on ``batch``, by its shapes: padding counts, recomputation does not.

    A part that learns takes three passes (forward, gradients of weights and of inputs), a frozen one after a part that
    learns takes two, another one. A part learns if any of its parameters does: a frozen text backbone whose
    cross-attention learns counts whole. Equal to ``training_flops`` where all learn.

    Args:
        model: gives the sizes, and by ``requires_grad`` what learns.
        batch: B clips of T chunks with Q texts, as if these were of equal length.
        reconstruct: whether the reconstruction losses are computed.
    """
    clips, chunks = batch.video_present.shape
    targets = batch.targets or text_targets(batch.tokens, batch.answer_mask)
    texts, row = batch.tokens.shape[1], targets.packed.shape[1]
    parts = forward_flops(model.config, chunks, [-(-row // max(texts, 1))] * texts, targets.positions.shape[1])
    if not reconstruct:
        del parts["reconstruction"]
    learning = {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    return clips * sum(flops * _passes(part, learning) for part, flops in parts.items())


def _passes(part: str, learning: set[str]) -> int:
    own, before = MODULES[part]
    if learning & set(own):
        return 3
    return 2 if learning & set(before) else 1


def peak_memory(device: torch.device) -> int:
    """Bytes at most so far: of tensors on a GPU, of this process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # POSIX, which the rest of this module does not need

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Stopwatch:
    """Times the steps of this process between two lines, without evaluations and checkpoints.

    On a GPU the wait is the time in which the card had nothing to do between two steps: as long as it works, a host
    that waits for the loader costs nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        card = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        self.peak = peak_tflops(card)
        self.marks: list[tuple[Any, Any]] = []  # CUDA events: beginning and end of each step
        self.resume()

    def resume(self) -> None:
        """Begin anew with the next step: evaluations and checkpoints have passed."""
        self.began = self.ended = time.monotonic()
        self.waited = 0.0
        self.steps = 0
        self.marks.clear()

    def step_begins(self) -> None:
        """The batch of a step is on the device."""
        if self.device.type != "cuda" or not self.marks:  # between lines the host has waited for the GPU
            self.waited += time.monotonic() - self.ended
        if self.device.type == "cuda":
            events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            events[0].record()
            self.marks.append(events)

    def step_ends(self) -> None:
        """The work of a step has been done, or on a GPU been given to it."""
        self.steps += 1
        self.ended = time.monotonic()
        if self.device.type == "cuda":
            self.marks[-1][1].record()

    def read(self) -> tuple[float, float]:
        """Seconds of a step, and the share of it in which data were awaited; waits for the last step."""
        waited = self.waited
        if self.marks:
            self.marks[-1][1].synchronize()
            pairs = zip(self.marks, self.marks[1:], strict=False)
            waited += sum(before[1].elapsed_time(after[0]) for before, after in pairs) / 1e3
        seconds = max(time.monotonic() - self.began, 1e-9)
        return seconds / max(self.steps, 1), min(waited / seconds, 1.0)

    def line(self, gathered: Tensor, batch_size: int, flops: int) -> dict[str, float]:
        """The figures of a line.

        Args:
            gathered: float [processes, 3], of each the seconds of a step, the share of waiting, and GiB at most.
            batch_size: clips of a step on all processes.
            flops: operations of this process in a step, as :func:`step_flops` counts them.
        """
        seconds, waits, memory = gathered.reshape(-1, 3).double().cpu().unbind(1)
        slowest = seconds.max().item()
        figures = {
            "clips_per_second": round(batch_size / slowest, 2),
            "wait_share": round(waits.max().item(), 4),
            "step_ms": round(seconds.median().item() * 1e3, 2),
            "slowest_step_ms": round(slowest * 1e3, 2),
            "memory_gib": round(memory.max().item(), 3),
        }
        return figures | ({"mfu": round(flops / slowest / self.peak / 1e12, 4)} if self.peak else {})
