"""A bundle against torch: equal over 1,000 chained steps and over a whole split, and faster than the eager steps.

    mirasol bench export [--json FILE] [--rounds 7] [--quick] [--all-clips] [--steps 1000]

`parity_1000`: for every combiner, a demo model with random weights; its onnxruntime session and torch's steps take the
same 1,000 chunks of noise, a part of them without sound or picture, each side continuing from its own states. The value
is the largest relative difference of x, h and states, over all combiners and steps. `parity_1000_COMBINER`: of one.
The figures show it over the first and the last 100 steps: whether the states drift.
`ort_vs_eager`: processor time of a chunk (both steps) in torch's eager mode over that in a session, one thread each, in
turn. `ort_ttm_flat`: a chunk of the session of the Token Turing Machine after 1,000 chunks over one after 10, in turn.
`bound_vs_run`: plain calls, which take and return all states, over buffers that swap.
`answers_equal`, with ``--all-clips``: of the project's own bundle (build/bundle, build/finetune, build/shards), the
share of greedy answers over every clip of the scored split, unchanged, muted and blanked, that equal torch's over
the whole clip.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundles import CLIP, random_bundle, random_model
from common import arguments, exact, in_turn, median_ms, ratio, report, rounded, spread, table

from mirasol.export.io_spec import step_graphs
from mirasol.model.config import COMBINERS
from mirasol.model.mirasol import Mirasol
from mirasol.model.threads import torch_threads
from mirasol.runtime.contract import ENCODER_COMBINER, LATENT
from mirasol.runtime.engine import Engine, relative
from mirasol.runtime.features import Inputs
from mirasol.runtime.session import Session

EARLY, REPEATED = 10, 20  # chunks seen before a step is timed, and chunks in one timing
BOUND = 5e-6


def noise(count: int) -> list[Inputs]:
    """Chunks of noise; one in seven without sound, one in eleven without a picture."""
    draws = np.random.default_rng(0)
    video = (1, CLIP.frames_per_chunk, CLIP.size * 3 // 2, CLIP.size)
    return [
        Inputs(
            draws.integers(16, 236, video, dtype=np.uint8),
            draws.normal(0, 1, (1, CLIP.audio_columns, CLIP.mels)).astype(np.float32),
            video_present=i % 11 != 10,
            audio_present=i % 7 != 6,
        )
        for i in range(count)
    ]


class Eager:
    """The same stream in torch's eager mode, for comparison with a session."""

    def __init__(self, model: Mirasol) -> None:
        graphs = {graph.name: graph for graph in step_graphs(model)}
        self._graphs = [graphs[ENCODER_COMBINER], graphs[LATENT]]
        self.states = [list(graph.state.values()) for graph in self._graphs]

    @torch.no_grad()
    def push(self, chunk: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """x and h [m, d]."""
        flags = (torch.tensor([chunk.video_present]), torch.tensor([chunk.audio_present]))
        inputs = (torch.from_numpy(chunk.video), torch.from_numpy(chunk.audio), *flags)
        x, *self.states[0] = self._graphs[0].module(*inputs, *self.states[0])
        h, *self.states[1] = self._graphs[1].module(x, *self.states[1])
        return x[0].numpy(), h[0].numpy()

    def named(self) -> dict[str, np.ndarray]:
        """The states, as a snapshot of a session names them."""
        return {
            f"{graph.name}/{name}": tensor.numpy()
            for graph, tensors in zip(self._graphs, self.states, strict=True)
            for name, tensor in zip(graph.state, tensors, strict=True)
        }


def differences(model: Mirasol, engine: Engine, steps: int) -> list[float]:
    """The largest relative difference of x and h of every step, and of the states every 50 steps."""
    session, eager, worst = Session(engine), Eager(model), []
    for number, chunk in enumerate(noise(steps)):
        found, (x, h) = session.push_features(chunk), eager.push(chunk)
        worst.append(max(relative(found.x, x), relative(found.h, h)))
        if number % 50 == 49:
            snapshot = session.snapshot()
            floats = {k: v for k, v in eager.named().items() if v.dtype == np.float32}
            worst[-1] = max(worst[-1], *(relative(snapshot[k], v) for k, v in floats.items()), 0.0)
    return worst


def repeat(work: Callable[[Inputs], object], chunks: list[Inputs]) -> None:
    """One timing."""
    for chunk in chunks:
        work(chunk)


def plain(engine: Engine) -> Callable[[Inputs], object]:
    """A stream by plain calls: states go in and come out."""
    states = {name: engine.initial(name) for name in (ENCODER_COMBINER, LATENT)}

    def push(c: Inputs) -> object:
        first = engine.encoder_combiner(c.video, c.audio, c.video_present, c.audio_present, states[ENCODER_COMBINER])
        x, states[ENCODER_COMBINER] = first
        h, states[LATENT] = engine.latent(x, states[LATENT])
        return h

    return push


def after(engine: Engine, seen: int, chunks: list[Inputs]) -> Callable[[], None]:
    """One timing of ``chunks`` in a stream that has seen so many chunks before, however often it is called."""
    session = Session(engine)
    repeat(session.push_features, noise(seen))
    snapshot = session.snapshot()

    def work() -> None:
        session.restore(snapshot)
        repeat(session.push_features, chunks)

    return work


def all_clips() -> tuple[dict[str, Any], dict[str, Any]]:
    """The export stage's own check, over every clip of the scored split."""
    from mirasol.export.config import ExportSpec
    from mirasol.export.parity import check_parity
    from mirasol.pipeline.params.load import load_params
    from mirasol.training.weights import load_model

    params = load_params()
    limits = {"split": params.evaluate.split, "max_answer": params.evaluate.max_answer}
    model = load_model(Path("build/finetune"))
    found = check_parity(model, "build/bundle", "build/shards", ExportSpec(clips=10**9), **limits)
    return exact(found["answers_equal"] / found["answers"]), found


def main() -> None:
    parser = arguments(__doc__, rounds=7)
    parser.add_argument("--all-clips", action="store_true", help="compare every clip of the scored split, too")
    parser.add_argument("--steps", type=int, default=1000, help="chained steps")
    options = parser.parse_args()
    steps = 60 if options.quick else options.steps
    combiners = ("transformer", "ttm") if options.quick else tuple(COMBINERS)
    ratios: dict[str, Any] = {}
    figures: dict[str, Any] = {"steps": steps, "drift": {}}
    rows: list[tuple[object, ...]] = [("relative difference", "worst", "first tenth", "last tenth")]
    with tempfile.TemporaryDirectory() as name, torch_threads(1):
        models = {combiner: random_model(combiner) for combiner in combiners}
        engines = {
            combiner: Engine(random_bundle(Path(name), model), threads=1, provider="cpu")
            for combiner, model in models.items()
        }
        for combiner, engine in engines.items():
            worst = differences(models[combiner], engine, steps)
            tenth = steps // 10
            row = (max(worst), statistics.median(worst[:tenth]), statistics.median(worst[-tenth:]))
            figures["drift"][combiner] = dict(
                zip(("worst", "first_tenth", "last_tenth"), map(rounded, row), strict=True)
            )
            rows.append((combiner, *(f"{value:.1e}" for value in row)))
            ratios[f"parity_1000_{combiner}"] = exact(max(worst))
        table(rows)
        ratios["parity_1000"] = exact(max(found["value"] for found in ratios.values()))

        chunks = noise(REPEATED)
        session, eager = Session(engines["transformer"]), Eager(models["transformer"])
        works = {
            "session": partial(repeat, session.push_features, chunks),
            "eager": partial(repeat, eager.push, chunks),
            "plain": partial(repeat, plain(engines["transformer"]), chunks),
        }
        taken = in_turn(works, options.rounds)
        ttm = {"early": after(engines["ttm"], EARLY, chunks), "late": after(engines["ttm"], steps, chunks)}
        flat = in_turn(ttm, 3 * options.rounds)
        ratios["ort_vs_eager"] = ratio(taken["eager"], taken["session"])
        ratios["ort_ttm_flat"] = ratio(flat["late"], flat["early"])
        ratios["bound_vs_run"] = ratio(taken["plain"], taken["session"])
        figures["chunk_ms"] = {n: rounded(median_ms(s) / REPEATED) for n, s in (taken | flat).items()}
        print(f"\na chunk, torch eager / onnxruntime: {spread(ratios['ort_vs_eager'])}, at least 1.3 is wanted")
        print(f"largest difference {ratios['parity_1000']['value']:.1e}, at most {BOUND:.0e} is wanted")
        if options.all_clips:
            ratios["answers_equal"], figures["all_clips"] = all_clips()
    report("export", options.json, ratios, figures)


if __name__ == "__main__":
    main()
