"""The sections of gpu_check.py: each takes a device and fills in its figures; an error fails it.

They need torch, pytorch-lightning and numpy. On a CPU the sizes are tiny.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from common import cpu_seconds, cuda_seconds, exact, rounded
from inputs import demo_config, random_batch, with_gaps
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mirasol.model.attention.chunk_causal import chunk_causal_attention
from mirasol.model.attention.visible import Visible
from mirasol.model.config import ModelConfig
from mirasol.model.mirasol import Mirasol
from mirasol.model.sizes.paper import PaperInputs, paper_config

ROOT = Path(__file__).resolve().parents[1]
GPU_TESTS = ("test_attention_gpu", "test_model_gpu", "test_logmel_gpu")
TEXT, PREDICTED = 48, 16  # tokens of a clip's text, and those of them that are an answer
CPU_CHECK = "chunk_causal_attention"  # reads which keys are hidden, on a CPU alone
WARM = 3  # steps before one is watched: the first ones make what is made once
Figures = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Where and how often a section measures."""

    device: torch.device
    rounds: int = 2

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    def seconds(self, work: Callable[[], object]) -> float:
        """The shortest of the rounds, after one call that does not count."""
        work()
        return min((cuda_seconds if self.gpu else cpu_seconds)(work) for _ in range(self.rounds))


def attention(setting: Setting, figures: Figures) -> None:
    """FlexAttention forward and backward against the loop, with and without hidden keys, and the ratio of their times.

    A CPU has no backward pass of FlexAttention: forward there.
    """
    clips, chunks, tokens, heads, head = (2, 16, 264, 16, 64) if setting.gpu else (1, 3, 20, 2, 16)
    draws = torch.Generator(setting.device).manual_seed(0)
    shape = (clips, chunks, tokens, heads, head)
    q, k, v, gradient = (torch.randn(shape, generator=draws, device=setting.device) for _ in range(4))
    own = torch.rand(shape[:3], generator=draws, device=setting.device) > 0.3
    own[..., 0] = True
    kinds = ((torch.float32, 2e-3), (torch.bfloat16, 3e-2)) if setting.gpu else ((torch.float32, 1e-4),)
    for (dtype, limit), seen in itertools.product(kinds, (None, Visible(own, own))):
        inputs = [x.to(dtype).requires_grad_(setting.gpu) for x in (q, k, v)]
        name = f"{str(dtype).removeprefix('torch.')}{'' if seen is None else ' masked'}"

        def both(backend: str, inputs: list[Tensor] = inputs, seen: Visible | None = seen) -> list[Tensor]:
            out = chunk_causal_attention(*inputs, chunks, seen, backend)
            back = torch.autograd.grad(out, inputs, gradient.to(out.dtype)) if out.requires_grad else ()
            return [out.detach(), *back]

        error = max(apart(a, b) for a, b in zip(both("flex"), both("loop"), strict=True))
        figures[name] = {"error": rounded(error)}
        require(error < limit, f"{name}: flex and loop differ by {error:.2g}, expected less than {limit:g}")
        ours, theirs = (setting.seconds(lambda backend=backend: both(backend)) for backend in ("flex", "loop"))
        figures[name] |= {"flex_ms": rounded(ours * 1e3), "flex_over_loop": rounded(ours / theirs)}


def log_mel(setting: Setting, figures: Figures) -> None:
    """Log-mel on the device against the same module on the CPU, and against numpy's."""
    import numpy as np

    from mirasol.data.loading.waveform import chunk_lengths, cut
    from mirasol.media import log_mel as reference
    from mirasol.media.clip import ClipSpec
    from mirasol.model.logmel import LogMel, LogMelSpec

    for spec in (ClipSpec(), ClipSpec(fps=7.3, frames_per_chunk=3, mels=64, level="relative")):
        sound = np.random.default_rng(0).normal(0, 4000, int(chunk_lengths(spec).sum())).astype(np.int16)
        found = cut(sound, spec, spec.chunks)
        given = torch.from_numpy(found.chunks), torch.from_numpy(found.samples)
        scale = reference.FLOOR, reference.MEAN_DB, reference.SCALE_DB
        whole = LogMelSpec(
            *reference.window_and_hop(spec), spec.audio_columns, *scale, relative=spec.level == "relative"
        )
        module = LogMel(torch.from_numpy(reference.mel_filters(spec.mels, spec.sample_rate)), whole)
        here = module(*given)
        there = module.to(setting.device)(*(x.to(setting.device) for x in given)).cpu()
        expected = reference.clip_audio(sound / np.float32(32768), spec, spec.chunk_seconds, spec.chunks)
        errors = float((here - there).abs().max()), float(np.abs(there[0].numpy() - expected).max())
        figures[spec.level] = {"from_cpu": rounded(errors[0]), "from_numpy": rounded(errors[1])}
        require(max(errors) < 2e-5, f"log-mel of {spec.level} level differs by {max(errors):.2g}, expected < 2e-5")


def host_syncs(setting: Setting, figures: Figures) -> None:
    """A training step of the trainer's module in which nothing waits for the device."""
    places: collections.Counter[str] = collections.Counter()

    def watched(step: int, work: Callable[[], None]) -> None:
        with waiting(setting, places) if step == WARM else contextlib.nullcontext():
            work()

    train(setting, config_of("demo")[0], WARM + 1, watched, gaps=True)
    figures["places"] = dict(places.most_common(20))
    figures["ratios"] = {"host_syncs": exact(places.total())}
    require(not (setting.gpu and places), f"the host waits {places.total()} times in a step: {dict(places)}")


def compiled(setting: Setting, figures: Figures) -> None:
    """Graph breaks of the forward pass; on a GPU also blocks compiled one by one against eager ones."""
    config, chunks = config_of("small" if setting.gpu else "demo")
    with setting.device:
        model = Mirasol(config).train()
    batch = random_batch(config, 2, chunks, 1, TEXT, predicted=PREDICTED, device=str(setting.device))
    batch = with_gaps(batch, config)
    found = torch._dynamo.explain(model)(batch)
    figures["reasons"] = [str(reason.reason)[:200] for reason in found.break_reasons[:10]]
    figures["ratios"] = {"graph_breaks": exact(found.graph_break_count)}
    if not setting.gpu:
        return
    torch._dynamo.reset()
    before, gradient = losses_of(model, batch)
    importlib.import_module("mirasol.training.parallel").compile_blocks(model)
    begun = time.monotonic()
    after, ours = losses_of(model, batch)
    loss, back = apart(after, before), apart(ours, gradient)
    figures |= {"compile_seconds": rounded(time.monotonic() - begun), "loss_error": rounded(loss)}
    figures["gradient_error"] = rounded(back)
    require(
        loss < 1e-2 and back < 0.1, f"compiled blocks in bf16: the loss differs by {loss:.2g}, a gradient by {back:.2g}"
    )


def train_small(setting: Setting, figures: Figures) -> None:
    """`mirasol bench train --preset small`."""
    bench(setting, figures, "small", seconds=70)


def train_base(setting: Setting, figures: Figures) -> None:
    """`mirasol bench train --preset base`: its ratios are those of the check."""
    figures["ratios"] = bench(setting, figures, "base", seconds=125)


def profile(setting: Setting, figures: Figures) -> None:
    """The ten costliest kernels of a training step of `base`."""
    memory = torch.cuda.get_device_properties(setting.device).total_memory / 2**30 if setting.gpu else 0.0
    preset = ("base" if memory > 70 else "small") if setting.gpu else "demo"
    kinds = torch.profiler.ProfilerActivity
    spans: list[Any] = []

    def watched(step: int, work: Callable[[], None]) -> None:
        if step != WARM:
            return work()
        with torch.profiler.profile(activities=[kinds.CPU, *([kinds.CUDA] if setting.gpu else [])]) as found:
            work()
            if setting.gpu:
                torch.cuda.synchronize()
        spans.extend(found.key_averages())

    train(setting, config_of(preset)[0], WARM + 1, watched)

    def cost(event: Any) -> float:
        return float(event.self_device_time_total if setting.gpu else event.self_cpu_time_total)

    kernels = [e for e in spans if not setting.gpu or str(e.device_type).endswith("CUDA")]
    kernels = [e for e in kernels if not getattr(e, "is_user_annotation", False)]  # spans over several kernels
    total = sum(map(cost, kernels))
    require(total > 0, "the profiler saw no kernel")
    figures |= {"preset": preset, "total_ms": rounded(total / 1e3)}
    figures["kernels"] = [
        {"name": e.key[:160], "ms": rounded(cost(e) / 1e3), "share": rounded(cost(e) / total), "calls": e.count}
        for e in sorted(kernels, key=cost, reverse=True)[:10]
    ]


def tests(setting: Setting, figures: Figures) -> None:
    """The tests marked `gpu` that need no other package, without pytest, for as long as there is time."""
    ends = time.monotonic() + 35
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/gpu")]
    with contextlib.suppress(ImportError):
        import pytest  # noqa: F401
    sys.modules.setdefault("pytest", Marks("pytest"))
    figures |= {"passed": 0, "failed": {}, "left_out": {}, "not_run": 0}
    for name in GPU_TESTS:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            figures["left_out"][name] = str(error)
            continue
        for case, function, values in cases(module):
            missing = set(function.__code__.co_varnames[: function.__code__.co_argcount]) - set(values)
            if missing:
                figures["left_out"][case] = f"takes the fixture {', '.join(sorted(missing))}"
            elif not setting.gpu or time.monotonic() > ends:
                figures["not_run"] += 1
            else:
                run_case(case, lambda function=function, values=values: function(**values), figures)
    require(not figures["failed"], f"failed: {', '.join(figures['failed'])}")


SECTIONS: dict[str, tuple[int, Callable[[Setting, Figures], None]]] = {  # seconds at most, together 480
    "attention": (55, attention),
    "log_mel": (20, log_mel),
    "host_syncs": (45, host_syncs),
    "train_small": (75, train_small),
    "train_base": (130, train_base),
    "profile": (45, profile),
    "compile": (60, compiled),
    "tests": (50, tests),
}


def require(held: bool, text: str) -> None:
    """Raise ``AssertionError`` with ``text`` unless ``held``."""
    if not held:
        raise AssertionError(text)


def apart(ours: Tensor, theirs: Tensor) -> float:
    """The norm of the difference over that of ``theirs``."""
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def config_of(preset: str) -> tuple[ModelConfig, int]:
    """A preset on the paper's clips of 128 frames, or the demo's, and T."""
    if preset != "demo":
        return paper_config(preset, frames=128), PaperInputs().chunks
    return demo_config(), 4


def losses_of(model: Mirasol, batch: Any) -> tuple[Tensor, Tensor]:
    """The sum of the losses, and the gradient of the first block's weights, in bf16."""
    model.zero_grad(set_to_none=True)
    with torch.autocast("cuda", torch.bfloat16):
        found = model(batch)
    loss = found["text"] + found["latent"] + found["video"]
    loss.backward()
    gradient = next(p.grad for p in model.vit.parameters() if p.grad is not None)
    return loss.detach(), gradient.clone()


def train(
    setting: Setting, config: ModelConfig, steps: int, watched: Callable[..., None], *, gaps: bool = False
) -> None:
    """Steps of the trainer's module; ``watched(step, work)`` calls ``work()`` for each, from step 0 on."""
    import pytorch_lightning as pl

    from mirasol.training.config import PhaseConfig
    from mirasol.training.module import PhaseModule

    class Watched(PhaseModule):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            watched(batch_idx, lambda: super(Watched, self).training_step(batch, batch_idx))

    torch.set_float32_matmul_precision("high")
    clips, chunks = (1, PaperInputs().chunks) if config.size > 48 else (2, 4)
    with setting.device:
        model = Mirasol(config).train()
    batch = random_batch(config, clips, chunks, 1, TEXT, predicted=PREDICTED)
    batch = with_gaps(batch, config) if gaps else batch
    module = Watched(model, PhaseConfig(steps=steps, batch_size=clips), seed=1, fused=True)
    trainer = pl.Trainer(
        accelerator=setting.device.type, devices=1, precision="bf16-mixed" if setting.gpu else "32-true",
        max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, train_dataloaders=itertools.repeat([batch]))


@contextlib.contextmanager
def waiting(setting: Setting, places: collections.Counter[str]) -> Iterator[None]:
    """Count each place at which the host waits: torch's warnings on a GPU, operators that read a value on a CPU."""
    if not setting.gpu:
        with Reads(places):
            yield
        return
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places.update(f"{w.filename}:{w.lineno}" for w in found if "synchroniz" in str(w.message))


class Reads(TorchDispatchMode):
    """Counts operators whose result the host would wait for on a GPU."""

    def __init__(self, places: collections.Counter[str]) -> None:
        super().__init__()
        self.places = places

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero"):
            frames = [f for f in traceback.extract_stack() if str(ROOT / "src") in f.filename]
            if frames and frames[-1].name == CPU_CHECK:
                return func(*args, **(kwargs or {}))
            self.places[f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "torch"] += 1
        return func(*args, **(kwargs or {}))


def bench(setting: Setting, figures: Figures, preset: str, seconds: int) -> dict[str, Any]:
    """Run benchmarks/train.py, put its figures into ``figures``; returns its ratios."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.json")
        sizes = ["--preset", preset] if setting.gpu else ["--quick"]
        command = [sys.executable, str(ROOT / "benchmarks/train.py"), *sizes, "--rounds", str(setting.rounds)]
        subprocess.run([*command, "--json", str(path)], check=True, timeout=seconds)
        found = json.loads(path.read_text(encoding="utf-8"))
    figures |= found["figures"]
    figures["found"] = found["ratios"]
    return dict(found["ratios"])


class Marks(ModuleType):
    """As much of pytest as the tests of tests/gpu need to be imported: marks."""

    @property
    def mark(self) -> Any:
        return Mark("")


class Mark:
    """A mark of a test, which also makes marks: ``mark.gpu``, ``mark.parametrize(names, values)``."""

    def __init__(self, name: str, *args: Any) -> None:
        self.name, self.args = name, args

    def __getattr__(self, name: str) -> Mark:
        return Mark(name)

    def __call__(self, *args: Any) -> Any:
        if len(args) == 1 and callable(args[0]):
            args[0].pytestmark = [*getattr(args[0], "pytestmark", []), self]
            return args[0]
        return Mark(self.name, *args)


def cases(module: ModuleType) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Each test of a module with each set of its parameters: name, function, values."""
    for name, function in vars(module).items():
        if not name.startswith("test_"):
            continue
        tables = []
        for mark in getattr(function, "pytestmark", ()):
            if mark.name == "parametrize":
                names = [mark.args[0]] if isinstance(mark.args[0], str) else list(mark.args[0])
                rows = [[row] if len(names) == 1 else row for row in mark.args[1]]
                tables.append([dict(zip(names, row, strict=True)) for row in rows])
        for parts in itertools.product(*tables):
            values = {key: value for part in parts for key, value in part.items()}
            yield f"{name}[{', '.join(map(str, values.values()))}]", function, values


def run_case(case: str, work: Callable[[], object], figures: Figures) -> None:
    """Count a test as passed or failed."""
    try:
        work()
        figures["passed"] += 1
    except Exception as error:
        traceback.print_exc()
        figures["failed"][case] = f"{type(error).__name__}: {error}"[:300]
