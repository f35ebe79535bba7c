"""The trainer's own step: on a GPU its speed and memory, on a CPU its share of the machine's matmul rate.

    mirasol bench train [--preset base] [--batch 4] [--frames 128] [--combiner transformer] [--json FILE]

From a bare checkout, on a machine with torch and pytorch-lightning:

    PYTHONPATH=src python benchmarks/train.py --preset base --json train.json

A step is PhaseModule's under Lightning's trainer, on batches in memory, so that no loader is timed. The model's work
is counted exactly (mirasol.model.sizes.accounting: block-causal, three times the forward pass, no work counted twice).
On a GPU: bf16 over fp32 weights, blocks compiled one by one, recomputation and micro-batches as `mirasol model memory`
predicts that they fit, texts of another length in each step of a round; `train_mfu` of the card's dense bf16 peak, and
the peak of its memory over the prediction.
On a CPU, one thread and fp32: the demo's step, and one layer of each part of `small`, between products of 1024 x 1024
that give the machine's rate; how far the gradients of all cuts of a step are apart. Graph breaks of the forward pass,
and reads by the host in a step, are counted with dropout, missing sound and frames, hidden features and two
micro-batches.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from common import arguments, exact, report, rounded, share, table
from gpu_sections import Reads
from inputs import demo_config, random_batch, with_gaps

from mirasol.model.batch import Batch
from mirasol.model.chunk_transformer import use_backend
from mirasol.model.config import ModelConfig
from mirasol.model.mirasol import Mirasol
from mirasol.model.sizes.accounting import training_flops
from mirasol.model.sizes.cards import peak_tflops
from mirasol.model.sizes.paper import PaperInputs, paper_config
from mirasol.training.config import PhaseConfig
from mirasol.training.memory import Job, cheapest
from mirasol.training.module import PhaseModule
from mirasol.training.parallel import compile_blocks
from mirasol.training.recompute import apply_recompute

PARTS = ("vit", "combiner_sizes", "latent_sizes", "reconstruction_sizes", "text")
SIDE = 1024  # of the matrices that give the machine's rate
LENGTHS = ((48, 16), (40, 13), (36, 12), (32, 10), (24, 8))  # of the texts of each step of a round on a GPU
PHASE = PhaseConfig(lr=1e-5, steps=10**6)


@dataclass(frozen=True)
class Work:
    """A training step: clips of T chunks with texts. ``lengths``: tokens of a text and its answer, a step's in turn."""

    name: str
    config: ModelConfig
    clips: int
    chunks: int
    texts: int = 1
    lengths: tuple[tuple[int, int], ...] = LENGTHS[:1]
    micro_batch: int = 0
    phase: PhaseConfig = PHASE

    @property
    def flops(self) -> int:
        """Operations of a clip's step, the mean over ``lengths``."""
        return sum(
            training_flops(self.config, self.chunks, [length - 1] * self.texts, self.texts * predicted)
            for length, predicted in self.lengths
        ) // len(self.lengths)

    def steps(self, device: str) -> list[list[Batch]]:
        """The micro-batches of a step with texts of each of ``lengths``."""
        size = self.micro_batch or self.clips
        found = []
        for length, predicted in self.lengths:
            batch = random_batch(self.config, size, self.chunks, self.texts, length, predicted=predicted, device=device)
            batch.complete = True
            found.append([batch] * (self.clips // size))
        return found


def demo(*, quick: bool) -> Work:
    """A step of the demo's finetuning, as params.yaml has it."""
    config, lengths = demo_config(), ((20, 2),)
    if quick:
        return Work("demo", config, clips=2, chunks=2, lengths=lengths)
    from mirasol.pipeline.params import load_params  # which needs more than torch

    phase = load_params(Path("params.yaml")).finetune
    return Work("demo", config, phase.batch_size, 4, phase.texts_per_clip, lengths, phase=phase)


def small_widths(*, quick: bool) -> Work:
    """One layer of each part of `small`, and few words, so that the optimiser costs little, as in a large batch."""
    config = paper_config("small", frames=128)
    flat = {part: dataclasses.replace(getattr(config, part), layers=1) for part in PARTS}
    config = dataclasses.replace(config, audio_layers=1, cross_every=1, vocabulary=1024, **flat)
    return Work("small's widths", config, clips=1 if quick else 2, chunks=2 if quick else 4)


class Rounds(pl.Callback):
    """Seconds of each round of ``count`` steps; ``between`` runs before each round."""

    def __init__(self, count: int, clock: Callable[[], float], between: Callable[[int], None]) -> None:
        self.count, self.clock, self.between = count, clock, between
        self.taken: list[float] = []
        self.begun = 0.0

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """A round begins."""
        if batch_idx % self.count == 0:
            self.between(batch_idx // self.count)
            self.begun = self.clock()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A round ends."""
        if batch_idx % self.count == self.count - 1:
            self.taken.append((self.clock() - self.begun) / self.count)


def train(module: PhaseModule, steps: list[list[Batch]], rounds: int, callback: Rounds, device: str) -> list[float]:
    """Seconds of a step in each round, without the first, which makes what is made once."""
    trainer = pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu", devices=1, max_epochs=-1,
        max_steps=(rounds + 1) * callback.count,
        precision="bf16-mixed" if device == "cuda" else "32-true", logger=False, callbacks=[callback],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, train_dataloaders=itertools.cycle(steps))
    return callback.taken[1:]


def matmul_flops(rounds: int = 3) -> float:
    """Operations a second of one thread of this machine in products of matrices: the best of some."""
    a, b = torch.randn(2, SIDE, SIDE).unbind()
    seconds = []
    for _ in range(rounds):
        begun = time.process_time()
        torch.mm(a, b)
        seconds.append(time.process_time() - begun)
    return 2 * SIDE**3 / min(seconds)


def on_cpu(work: Work, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of a step in each round, and the share of the machine's matmul rate that it reaches."""
    rates: list[float] = []
    callback = Rounds(1, time.process_time, lambda number: rates.append(matmul_flops()))
    torch.manual_seed(0)
    phase = dataclasses.replace(work.phase, steps=10**6)
    module = PhaseModule(Mirasol(work.config).train(), phase, seed=0, fused=True)
    taken = train(module, work.steps("cpu"), rounds, callback, "cpu")
    return taken, [work.clips * work.flops / s / rate for s, rate in zip(taken, rates[1:], strict=True)]


class Counting(PhaseModule):
    """Counts the reads of its second step."""

    reads = 0

    def training_step(self, parts: list[Batch], batch_idx: int) -> None:
        """As :class:`PhaseModule`."""
        if batch_idx != 1:
            return super().training_step(parts, batch_idx)
        places: Counter[str] = Counter()
        with Reads(places):
            super().training_step(parts, batch_idx)
        self.reads = places.total()


def hard(work: Work) -> tuple[Mirasol, list[Batch]]:
    """A model with dropout, and a step of two micro-batches with gaps and hidden features."""
    config = dataclasses.replace(work.config, dropout=0.1)
    halved = dataclasses.replace(work, config=config, micro_batch=max(1, work.clips // 2))
    return Mirasol(config).train(), [with_gaps(batch, config) for batch in halved.steps("cpu")[0]]


def host_syncs(work: Work) -> int:
    """Reads of a value by the host in a step."""
    model, parts = hard(work)
    module = Counting(model, PHASE, seed=0, fused=True)
    train(module, [parts], 1, Rounds(1, time.process_time, lambda number: None), "cpu")
    return module.reads


def graph_breaks(work: Work) -> int:
    """Breaks of the graph under torch.compile, of the forward pass alone: not of the backward pass or the step."""
    model, parts = hard(work)
    return int(torch._dynamo.explain(model)(parts[0]).graph_break_count)


def gradient_split() -> dict[str, float]:
    """How far the gradient of each cut of a step is from that of the whole, in fp64 (benchmarks/split.py)."""
    import split  # which needs safetensors

    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {}
        for world in split.CUTS:
            found |= split.launch(world, Path(folder))
    wanted = found["1 none 0"]["gradients"]
    return {cut: split.difference(each["gradients"], wanted) for cut, each in found.items()}


def measure_cpu(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ratios and figures of a machine without a GPU."""
    torch.set_num_threads(1)
    step = demo(quick=options.quick)
    ratios: dict[str, Any] = {}
    figures: dict[str, Any] = {"preset": "demo", "precision": "fp32", "threads": 1}
    if not options.quick:
        cuts = gradient_split()
        figures["gradient_cuts"] = {cut: rounded(value) for cut, value in cuts.items()}
        ratios["gradient_split"] = exact(max(cuts.values()))
    ratios["graph_breaks"] = exact(graph_breaks(step))
    ratios["host_syncs"] = exact(host_syncs(step))
    for name, work in (("matmul_share", small_widths(quick=options.quick)), ("demo_matmul_share", step)):
        taken, reached = on_cpu(work, options.rounds)
        ratios[name] = share(reached)
        figures[work.name] = {"step_ms": rounded(statistics.median(taken) * 1e3), "gflop_per_clip": work.flops / 1e9}
    figures["clips_per_second"] = rounded(step.clips / statistics.median(taken))
    figures["matmul_gflops"] = rounded(matmul_flops() / 1e9)
    return ratios, figures


def measure_gpu(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ratios and figures of a preset on a GPU."""
    config, chunks = (
        paper_config(options.preset, frames=options.frames, combiner=options.combiner),
        PaperInputs().chunks,
    )
    memory = torch.cuda.get_device_properties(0).total_memory
    length, answer = max(LENGTHS)
    job = Job(options.preset, config, chunks, options.batch, length=length, answer=answer)
    predicted = cheapest(job, memory)
    micro_batch = predicted.setting.micro_batch
    work = Work(options.preset, config, options.batch, chunks, lengths=LENGTHS, micro_batch=micro_batch)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = Mirasol(config).train()
    use_backend(model, options.attention)
    apply_recompute(model, predicted.setting.recompute)
    if not options.eager:
        compile_blocks(model)
    module = PhaseModule(model, work.phase, seed=0, fused=True)

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    def between(number: int) -> None:
        if number == 1:  # what compilation took is over
            torch.cuda.reset_peak_memory_stats()

    taken = train(module, work.steps("cuda"), options.rounds, Rounds(len(LENGTHS), clock, between), "cuda")
    found = torch.cuda.max_memory_allocated()
    card = torch.cuda.get_device_name()
    peak = options.peak or peak_tflops(card)
    reached = [work.clips * work.flops / 1e12 / each for each in taken]
    ratios = {"train_mfu": share([each / peak for each in reached])} if peak else {}
    ratios["peak_vs_predicted"] = exact(found / predicted.total)
    figures = {
        "preset": options.preset,
        "combiner": options.combiner,
        "attention": options.attention,
        "parameters": sum(p.numel() for p in model.parameters()),
        "batch": options.batch,
        "frames": chunks * config.frames_per_chunk,
        "size": config.size,
        "precision": "bf16",
        "compiled": not options.eager,
        "recompute": predicted.setting.recompute,
        "micro_batch": micro_batch,
        "step_ms": rounded(statistics.median(taken) * 1e3),
        "clips_per_second": rounded(work.clips / statistics.median(taken)),
        "tflop_per_clip": rounded(work.flops / 1e12),
        "tflops": rounded(statistics.median(reached)),
        "peak_tflops": peak,
        "memory_gib": rounded(found / 2**30),
        "predicted_gib": rounded(predicted.total / 2**30),
    }
    return ratios, figures


def main() -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--preset", choices=("base", "small"), default="base", help="of the model on a GPU")
    parser.add_argument("--combiner", default="transformer", help="of the model, such as ttm")
    parser.add_argument("--attention", default="auto", help="of chunks: auto, loop, flex, dense")
    parser.add_argument("--batch", type=int, default=4, help="clips of a step")
    parser.add_argument("--frames", type=int, default=128, help="frames of a clip of 16 chunks")
    parser.add_argument("--peak", type=float, help="dense bf16 TFLOP/s of the card, where its name does not say")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    options = parser.parse_args()
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    gpu = torch.cuda.is_available() and not options.quick
    ratios, figures = (measure_gpu if gpu else measure_cpu)(options)
    table([("figure", ""), *((key, str(value)) for key, value in figures.items() if not isinstance(value, dict))])
    report("train", options.json, ratios, figures)


if __name__ == "__main__":
    main()
