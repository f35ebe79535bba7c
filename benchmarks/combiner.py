"""The Token Turing Machine against the transformer combiner: one streaming step, whole clips, the whole model.

    mirasol bench combiner [--json FILE] [--rounds 5] [--quick]

The transformer is the model's: cached keys and values, exact mask, m queries in the last layer.

Step: a combiner of the paper's size (8 layers of 1024, n = 256, m = 32; S 4) takes one chunk. The transformer's ring
holds `max_chunks` chunks and a step attends to all of it, so a step costs the same at any t; its cost grows
with the size of the ring. So for each t the ring holds exactly t chunks: the cheapest transformer that has
forgotten nothing. Every step copies the ring (states are values); `copy` is the share of that.
TTM's state has one size; the cost of a step after 1,000 chunks is compared with that after 10.
Clip: forward and backward of the combiner alone over T chunks, at a quarter of the width, of n and of TTM's memory and
half the layers. Model: forward and backward of a whole model of base's proportions (widths and tokens an eighth,
layers a quarter), 16 chunks; memory is the peak of the tensors without the optimiser. The paper states
-30 % memory and -18 % time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import arguments, exact, in_turn, median_ms, peak_mib, ratio, report, rounded, spread, table
from inputs import random_batch, weighted_loss

from mirasol.model.combiners.build import build_combiner
from mirasol.model.config import ModelConfig, ModelSpec, Sizes
from mirasol.model.mirasol import Mirasol
from mirasol.model.sizes.presets import build_config

AUDIO = 8  # audio tokens among the n features
EARLY, LATE, REPEATED = 10, 1000, 3  # chunks seen before a TTM step is timed, and steps in one timing
PAPER = {"memory": 0.70, "time": 0.82}  # P 3.2, TTM over transformer
Row = tuple[object, ...]


def paper_sizes(quick: bool) -> tuple[ModelConfig, int]:
    """A config whose combiners have the sizes of S 4, and n; a quarter of both with ``quick``."""
    spec = ModelSpec(preset="base", queries="last", num_queries=32)
    base = build_config(spec, size=224, frames_per_chunk=8, mels=64, audio_columns=32, vocabulary=256, max_text=64)
    base = dataclasses.replace(base, vit=dataclasses.replace(base.vit, width=base.combiner_sizes.width))
    return (quarter(base), 64) if quick else (base, 256)


def quarter(config: ModelConfig) -> ModelConfig:
    """The combiners at a quarter of the width and of TTM's memory, with half the layers."""
    return dataclasses.replace(
        config,
        vit=dataclasses.replace(config.vit, width=256),
        combiner_sizes=dataclasses.replace(config.combiner_sizes, layers=4, width=256, hidden=1024, heads=4),
        ttm_sizes=Sizes(1, 256, 32, 3, 64),
        ttm_memory=64,
        ttm_read=128,
        num_queries=8,
    )


def combiner(config: ModelConfig, name: str, features: int, max_chunks: int) -> Any:
    """The combiner alone."""
    torch.manual_seed(0)
    changed = dataclasses.replace(config, combiner=name, max_chunks=max_chunks)
    return build_combiner(changed, torch.zeros(features - AUDIO, 2), AUDIO)


def steps(config: ModelConfig, features: int, rings: list[int]) -> dict[str, Callable[[], None]]:
    """The timed parts of streaming: TTM early and late, the transformer with each ring, and the copy of the largest."""
    draws = torch.Generator().manual_seed(0)
    u = torch.randn(1, 1, features, config.combiner_sizes.width, generator=draws)
    valid = torch.ones(1, 1, features, dtype=torch.bool)

    def step(model: Any, state: dict[str, Any], count: int = 1) -> dict[str, Any]:
        with torch.no_grad():
            for _ in range(count):
                state = model(u, valid, state)[1]
        return state

    works: dict[str, Callable[[], None]] = {}
    ttm = combiner(config, "ttm", features, 1)
    early = step(ttm, ttm.init_state(1, "cpu", torch.float32), EARLY)
    late = step(ttm, early, LATE - EARLY)
    for name, state in (("ttm early", early), ("ttm late", late)):
        works[name] = partial(step, ttm, state, REPEATED)
    for ring in rings:
        model = combiner(config, "transformer", features, ring)
        state = model.init_state(1, "cpu", torch.float32)
        state = {
            "keys_values": torch.randn(state["keys_values"].shape, generator=draws),
            "valid": state["valid"] | True,
        }
        works[f"ring {ring}"] = partial(step, model, state)
    works["copy"] = partial(copy_ring, state["keys_values"])
    return works


def copy_ring(keys_values: torch.Tensor) -> None:
    """The copy of the ring in a step, without its attention."""
    layers = range(keys_values.shape[1])
    torch.stack([torch.cat([keys_values[:, i, :, 1:], keys_values[:, i, :, :1]], dim=2) for i in layers], dim=1)


def clip(model: Any, u: torch.Tensor) -> None:
    """Forward and backward of a combiner over a whole clip."""
    model(u, None)[0].square().mean().backward()


def train(model: Mirasol, batch: Any) -> None:
    """Forward and backward of a whole model."""
    model.zero_grad(set_to_none=True)
    weighted_loss(model(batch)).backward()


def whole_model(name: str, quick: bool) -> Mirasol:
    """Base's proportions: widths and tokens an eighth, layers a quarter (TTM's two: one)."""
    spec = ModelSpec(preset="base", combiner=name, queries="last", num_queries=4)
    base = build_config(
        spec, size=40 if quick else 80, frames_per_chunk=8, mels=32, audio_columns=32, vocabulary=4096, max_text=32
    )
    sizes = dataclasses.replace(base.combiner_sizes, layers=2, width=128, hidden=512, heads=2)
    torch.manual_seed(0)
    return Mirasol(
        dataclasses.replace(
            base,
            vit=Sizes(8, 160, 640, 4, 40),
            audio_layers=1,
            combiner_sizes=sizes,
            latent_sizes=sizes,
            reconstruction_sizes=sizes,
            reconstruction_size=20,
            reconstruction_tube=(8, 10, 10),
            text=Sizes(4, 192, 1536, 3, 64),
            cross_hidden=1536,
            ttm_sizes=Sizes(1, 128, 16, 3, 32),
            ttm_memory=32,
            ttm_read=64,
        )
    )


def measure_steps(rounds: int, quick: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two claims about a step, and the table behind them."""
    config, features = paper_sizes(quick)
    rings = [4, 16, 64]
    taken = in_turn(steps(config, features, rings), rounds)
    for name in ("ttm early", "ttm late"):
        taken[name] = [seconds / REPEATED for seconds in taken[name]]
    ms = {name: median_ms(seconds) for name, seconds in taken.items()}
    bare = [a - b for a, b in zip(taken["ring 64"], taken["copy"], strict=True)]
    without_copy = ratio(bare, taken["ttm late"])
    rows: list[Row] = [("step, ms of processor", "transformer", "TTM", "transformer / TTM")]
    for ring in rings:
        found = spread(ratio(taken[f"ring {ring}"], taken["ttm late"]))
        rows.append((f"t = {ring}", ms[f"ring {ring}"], ms["ttm late"], found))
    rows.append(("t = 64, ring not copied", rounded(ms["ring 64"] - ms["copy"]), ms["ttm late"], spread(without_copy)))
    table(rows)
    slopes = {
        "transformer": rounded((ms["ring 64"] - ms["ring 4"]) / 60),
        "ttm": rounded((ms["ttm late"] - ms["ttm early"]) / (LATE - EARLY)),
    }
    print(f"slope, ms for each chunk remembered: transformer {slopes['transformer']:g}, TTM {slopes['ttm']:g}\n")
    ratios = {
        "ttm_step_flat": ratio(taken["ttm late"], taken["ttm early"]),
        "combiner_step_t64": ratio(taken["ring 64"], taken["ttm late"]),
    }
    return ratios, {"step_ms": ms, "step_slope_ms": slopes, "combiner_step_t64_without_copy": without_copy}


def measure_clips(rounds: int, quick: bool) -> dict[str, Any]:
    """Forward and backward of the combiners alone over T chunks, TTM over transformer."""
    config, features = quarter(paper_sizes(True)[0]), 64
    found: dict[str, Any] = {}
    rows: list[Row] = [("clip, TTM / transformer", "time", "peak memory", "transformer ms", "TTM ms")]
    for chunks in (4, 8, 16) if quick else (4, 16, 64, 128):
        u = torch.randn(1, chunks, features, config.combiner_sizes.width, generator=torch.Generator().manual_seed(0))
        u.requires_grad_()
        works = {name: partial(clip, combiner(config, name, features, chunks), u) for name in ("transformer", "ttm")}
        taken = in_turn(works, rounds)
        peak = {name: peak_mib(work) for name, work in works.items()}
        time = ratio(taken["ttm"], taken["transformer"])
        memory = rounded(peak["ttm"] / peak["transformer"])
        ms = [median_ms(taken[name]) for name in works]
        rows.append((f"T = {chunks}", spread(time), memory, *ms))
        found[str(chunks)] = {"time": time, "memory": memory, "peak_mib": {k: rounded(v) for k, v in peak.items()}}
    table(rows)
    print()
    return found


def measure_model(rounds: int, quick: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """A train step of the whole model, TTM over transformer, and the paper's figures."""
    models = {name: whole_model(name, quick) for name in ("transformer", "ttm")}
    batch = random_batch(models["ttm"].config, clips=1, chunks=4 if quick else 16, texts=1, length=32)
    works = {name: partial(train, model, batch) for name, model in models.items()}
    taken = in_turn(works, rounds)
    peak = {name: peak_mib(work) for name, work in works.items()}
    ratios = {
        "combiner_model_time": ratio(taken["ttm"], taken["transformer"]),
        "combiner_model_memory": exact(peak["ttm"] / peak["transformer"]),
    }
    rows: list[Row] = [("whole model, TTM / transformer", "ours", "the paper's")]
    rows.append(("time of a train step", spread(ratios["combiner_model_time"]), PAPER["time"]))
    rows.append(("peak memory", ratios["combiner_model_memory"]["value"], PAPER["memory"]))
    table(rows)
    tokens = models["ttm"].video_tubes.tokens + models["ttm"].audio.tokens
    figures = {"peak_mib": {k: rounded(v) for k, v in peak.items()}, "features": tokens, "paper": PAPER}
    return ratios, {"model": {**figures, "milliseconds": {name: median_ms(x) for name, x in taken.items()}}}


def main() -> None:
    """Measure, print, write."""
    options = arguments(__doc__).parse_args()
    torch.set_num_threads(1)
    ratios, figures = measure_steps(options.rounds, options.quick)
    figures["clip"] = measure_clips(options.rounds, options.quick)
    more, model = measure_model(options.rounds, options.quick)
    report("combiner", options.json, {**ratios, **more}, {**figures, **model})


if __name__ == "__main__":
    main()
