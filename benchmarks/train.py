"""A training step on a GPU: clips a second, and the share of the card's dense bf16 peak that the model's work is (MFU).

    mirasol bench train [--preset base] [--batch 4] [--frames 128] [--combiner transformer] [--json FILE]

From a bare checkout, on any machine with torch >= 2.11; no other package is needed:

    PYTHONPATH=src python benchmarks/train.py --preset base --json train.json

The model's work is counted exactly (mirasol.model.sizes.accounting: block-causal, three times the forward pass, no work
counted twice). bf16 autocast over fp32 weights, fused AdamW, gradient clipping; one batch on the card, so
that no loader is timed. Blocks are compiled one by one: equal ones share a kernel, which keeps the start at a
minute or two. The backward pass recomputes as many ViT blocks as memory requires. On a CPU it runs the
demo's model, uncompiled, in fp32.
"""

from __future__ import annotations

import gc
import itertools
import os
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import arguments, cpu_seconds, cuda_seconds, report, rounded, share, table
from inputs import random_batch, weighted_loss
from torch import nn
from torch.utils.checkpoint import checkpoint

from mirasol.model.chunk_transformer import use_backend
from mirasol.model.config import ModelConfig, ModelSpec
from mirasol.model.layers import Block
from mirasol.model.mirasol import Mirasol
from mirasol.model.sizes.accounting import training_flops
from mirasol.model.sizes.paper import PaperInputs, paper_config
from mirasol.model.sizes.presets import build_config

PEAKS = {"H200": 989, "H100": 989, "GH200": 989, "A100": 312}  # dense bf16 TFLOP/s by the makers' data sheets
DEMO = {
    "size": 48,
    "frames_per_chunk": 4,
    "mels": 32,
    "audio_columns": 16,
    "vocabulary": 256,
    "max_text": 48,
}  # of params.yaml
TEXT, PREDICTED = 48, 16  # tokens of a clip's text, and those of them that are an answer
SHARES = (0.0, 0.25, 0.5, 1.0)  # of the ViT's blocks that are computed again, the first that fits
STEPS = 5  # of one round on a GPU


def config_of(preset: str, combiner: str, frames: int) -> tuple[ModelConfig, int]:
    """The preset on the paper's clips of 16 chunks, or the demo's, and T."""
    if preset != "demo":
        return paper_config(preset, frames=frames, combiner=combiner), PaperInputs().chunks
    return build_config(ModelSpec(combiner=combiner), **DEMO), frames // DEMO["frames_per_chunk"]


def blocks_of(model: Mirasol) -> tuple[list[nn.Module], list[nn.Module]]:
    """The shared ViT's blocks, and all other blocks over the tokens of chunks."""
    first = list(model.vit.blocks)
    return first, [m for m in model.modules() if isinstance(m, Block) and m not in first]


def compile_blocks(model: Mirasol) -> None:
    """Compile each block for the shapes it meets: most of the time, and none of the data-dependent parts."""
    torch._dynamo.config.recompile_limit = 64
    for block in itertools.chain(*blocks_of(model)):
        block.forward = torch.compile(block.forward, dynamic=False)  # type: ignore[method-assign]


def recompute(model: Mirasol, share: float) -> int:
    """Let a share of the ViT's blocks keep nothing but their input for the backward pass; how many these are."""
    blocks, _ = blocks_of(model)
    count = round(share * len(blocks))
    for number, block in enumerate(blocks):
        forward: Any = getattr(block.forward, "keywords", {}).get("function", block.forward)
        again = partial(_again, function=forward)
        block.forward = again if number < count else forward  # type: ignore[method-assign]
    return count


def _again(*tensors: torch.Tensor, function: Callable[..., torch.Tensor]) -> Any:
    return checkpoint(function, *tensors, use_reentrant=False)


def train_step(model: Mirasol, optimizer: torch.optim.Optimizer, batch: Any, device: str, count: int = 1) -> None:
    """That many steps; only the model's own look-ups wait for the device."""
    for _ in range(count):
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            losses = model(batch)
        weighted_loss(losses).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def fit_into_memory(model: Mirasol, step: Callable[[], None]) -> int:
    """Recompute as few blocks as let two steps pass; how many these are.

    Raises:
        SystemExit: not even all of them do.
    """
    for part in SHARES:
        count = recompute(model, part)
        print(f"two steps with {count} of {len(model.vit.blocks)} ViT blocks computed again", flush=True)
        try:
            step()
            step()  # the optimiser's moments are there from now on
            torch.cuda.synchronize()
            return count
        except torch.OutOfMemoryError:
            pass
        model.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()
    raise SystemExit("out of memory with every ViT block computed again: choose a smaller --batch or --frames")


def main() -> None:
    """Measure, print, write."""
    parser = arguments(__doc__)
    parser.add_argument("--preset", choices=("base", "small", "demo"), default="base")
    parser.add_argument("--combiner", default="transformer", help="of the model, such as ttm")
    parser.add_argument(
        "--attention", default="auto", help="backend of chunk-causal attention: auto, loop, flex, dense"
    )
    parser.add_argument("--batch", type=int, default=4, help="clips of a step")
    parser.add_argument("--frames", type=int, default=128, help="frames of a clip of 16 chunks")
    parser.add_argument("--peak", type=float, help="dense bf16 TFLOP/s of the card, where its name does not say")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    options = parser.parse_args()
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # a failed attempt leaves no holes
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and options.preset != "demo":
        print(f"no GPU here: the demo's model on the CPU, in place of {options.preset}")
        options.preset, options.frames = "demo", 16
    if options.quick:
        options.preset, options.frames, options.batch = "demo", 8, 2
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    config, chunks = config_of(options.preset, options.combiner, options.frames)
    with torch.device(device):
        model = Mirasol(config).train()
    use_backend(model, options.attention)
    batch = random_batch(config, options.batch, chunks, 1, TEXT, predicted=PREDICTED, device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01, fused=True)
    step = partial(train_step, model, optimizer, batch, device)
    parameters = sum(p.numel() for p in model.parameters())
    work = training_flops(config, chunks, [TEXT - 1], PREDICTED) / 1e12
    print(f"{options.preset}: {parameters / 1e6:,.1f} M parameters, {work:.4g} TFLOP for a clip's step", flush=True)
    recomputed = 0
    if device == "cuda":
        if not options.eager:
            compile_blocks(model)
        recomputed = fit_into_memory(model, step)
        torch.cuda.reset_peak_memory_stats()
    count, seconds = (STEPS, cuda_seconds) if device == "cuda" else (1, cpu_seconds)
    step()
    taken = [seconds(partial(step, count)) / count for _ in range(options.rounds)]
    reached = [options.batch * work / each for each in taken]  # TFLOP/s
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    peak = options.peak or next((tflops for card, tflops in PEAKS.items() if device == "cuda" and card in name), None)
    figures: dict[str, Any] = {
        "preset": options.preset,
        "combiner": options.combiner,
        "attention": options.attention,
        "parameters": parameters,
        "batch": options.batch,
        "frames": chunks * config.frames_per_chunk,
        "size": config.size,
        "step_ms": rounded(statistics.median(taken) * 1e3),
        "clips_per_second": rounded(options.batch / statistics.median(taken)),
        "tflop_per_clip": rounded(work),
        "tflops": rounded(statistics.median(reached)),
        "peak_tflops": peak,
        "precision": "bf16" if device == "cuda" else "fp32",
        "compiled": device == "cuda" and not options.eager,
        "vit_blocks_recomputed": recomputed,
        "memory_gib": rounded(torch.cuda.max_memory_allocated() / 2**30) if device == "cuda" else None,
    }
    table([("figure", ""), *((key, str(value)) for key, value in figures.items())])
    report("train", options.json, {"train_mfu": share([each / peak for each in reached])} if peak else {}, figures)


if __name__ == "__main__":
    main()
