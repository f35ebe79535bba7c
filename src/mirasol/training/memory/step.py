"""A training step of the real model on tensors without data: its memory, in seconds and on any machine."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mirasol.model import chunk_transformer
from mirasol.model.batch import Batch, TextTargets, text_targets
from mirasol.model.config import ModelConfig
from mirasol.model.losses import LOSSES, Objective
from mirasol.model.mirasol import Mirasol
from mirasol.training.config import PhaseConfig
from mirasol.training.memory.live import KINDS, LiveBytes
from mirasol.training.optim import decayed_names
from mirasol.training.parallel import units
from mirasol.training.phases import freeze
from mirasol.training.recompute import apply_recompute

T = TypeVar("T", bound=Batch | TextTargets)


@dataclass(frozen=True)
class Load:
    """The work of one forward and backward pass on one device."""

    clips: int
    chunks: int
    texts: int = 1  # of each clip
    length: int = 0  # tokens of a text; 0: as many as the model takes
    answer: int = 0  # those of them that it predicts, the last ones; 0: all
    phase: PhaseConfig = field(default_factory=PhaseConfig)  # of it: the parts that learn, and the losses
    recompute: str = "none"
    mixed: bool = True  # bf16 autocast
    accumulated: bool = False  # gradients of other micro-batches exist before
    cuda: bool = True  # kernels and casts as on CUDA, else as on a CPU


@dataclass(frozen=True)
class StepMemory:
    """The memory of a pass, in bytes."""

    rows: Tensor  # int64 [events, KINDS], bytes alive at each event
    kept: int  # activations alive between forward and backward pass
    batch: int  # the clips themselves
    buffers: int  # tables of the model
    root: int  # parameters (not bytes) outside of blocks
    units: tuple[int, ...]  # parameters of each part that FSDP gathers at once
    learning: int  # parameters that learn
    matrices: int  # those of them that Muon takes

    @property
    def parameters(self) -> int:
        """Parameters of the model."""
        return self.root + sum(self.units)

    def peak(self, shares: dict[str, float]) -> dict[str, float]:
        """Bytes of each kind at the moment when their sum is highest, each kind times its share."""
        weights = torch.tensor([shares.get(kind, 1.0) for kind in KINDS], dtype=torch.float64)
        weighed = self.rows.double() * weights
        return dict(zip(KINDS, weighed[int(weighed.sum(dim=1).argmax())].tolist(), strict=True))


def step_memory(config: ModelConfig, load: Load) -> StepMemory:
    """Run forward and backward pass of a model of these sizes without data, and count.

    Raises:
        ValueError: the sizes make no model.
    """
    fake = FakeTensorMode()
    batch = _fake(_clips(config, load), fake)
    objective = Objective(*(getattr(load.phase, f"{name}_weight") for name in LOSSES))
    with fake, contextlib.ExitStack() as stack:
        model = Mirasol(config).train()
        freeze(model, load.phase)
        apply_recompute(model, load.recompute)
        groups = _parameters_of_units(model)
        inside = {name for names in groups for name in names}
        named = dict(model.named_parameters())
        live = LiveBytes((parameter, name not in inside) for name, parameter in named.items())
        if load.cuda:
            stack.enter_context(_kernels_of_cuda())
            _normalise_in_fp32(model)
        if load.accumulated:
            for parameter in (p for p in named.values() if p.requires_grad):
                parameter.grad = torch.empty_like(parameter)
                live.known_gradient(parameter)
        stack.enter_context(live)
        with torch.autocast("cpu", torch.bfloat16, enabled=load.mixed):
            loss = objective.weighted(model(batch, objective))
        kept = live.live["activations"]
        loss.backward()
    sizes = tuple(sum(named[name].numel() for name in names) for names in groups)
    return StepMemory(
        rows=torch.tensor(live.rows),
        kept=kept,
        batch=sum(_bytes(tensor) for tensor in _tensors(batch)),
        buffers=sum(_bytes(buffer) for buffer in model.buffers()),
        root=sum(p.numel() for p in named.values()) - sum(sizes),
        units=sizes,
        learning=sum(p.numel() for p in named.values() if p.requires_grad),
        matrices=sum(named[name].numel() for name in decayed_names(model) if named[name].requires_grad),
    )


def _clips(config: ModelConfig, load: Load) -> Batch:
    clips, chunks, texts = load.clips, load.chunks, load.texts
    tokens = torch.zeros(clips, texts, load.length or config.max_text, dtype=torch.int64)
    answers = torch.zeros_like(tokens, dtype=torch.bool)
    answers[:, :, -load.answer :] = True
    return Batch(
        video=torch.zeros(clips, chunks, config.frames_per_chunk, config.size * 3 // 2, config.size, dtype=torch.uint8),
        audio=torch.zeros(clips, chunks, config.audio_columns, config.mels),
        video_present=torch.ones(clips, chunks, dtype=torch.bool),
        audio_present=torch.ones(clips, chunks, dtype=torch.bool),
        tokens=tokens,
        answer_mask=answers,
        text_weight=torch.ones(clips, texts),
        complete=True,
        targets=text_targets(tokens, answers),
    )


def _fake(value: T, mode: FakeTensorMode) -> T:
    changed: dict[str, Any] = {}
    for name, part in vars(value).items():
        if isinstance(part, Tensor):
            changed[name] = mode.from_tensor(part)
        elif isinstance(part, TextTargets):
            changed[name] = _fake(part, mode)
    return dataclasses.replace(value, **changed)


def _tensors(batch: Batch) -> list[Tensor]:
    parts = [*vars(batch).values(), *(vars(batch.targets).values() if batch.targets else ())]
    return [part for part in parts if isinstance(part, Tensor)]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _parameters_of_units(model: nn.Module) -> list[set[str]]:
    """Names of the parameters of each unit, without those of units inside it."""
    prefixes = {module: name for name, module in model.named_modules()}
    found: list[set[str]] = []
    taken: set[str] = set()
    for unit in units(model):
        names = {f"{prefixes[unit]}.{name}" for name, _ in unit.named_parameters()} - taken
        taken |= names
        found.append(names)
    return found


@contextlib.contextmanager
def _kernels_of_cuda() -> Iterator[None]:
    """Chunk-causal attention with the memory of FlexAttention on CUDA, in place of the CPU's chunk loop."""
    before = chunk_transformer.chunk_causal_attention
    chunk_transformer.chunk_causal_attention = _flex  # type: ignore[assignment]
    try:
        yield
    finally:
        chunk_transformer.chunk_causal_attention = before


def _flex(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> Tensor:
    heads_first = (x.flatten(1, 2).transpose(1, 2) for x in (q, k, v))
    out: Tensor = _Flex.apply(*heads_first)
    return out.transpose(1, 2).unflatten(1, q.shape[1:3])


class _Flex(torch.autograd.Function):
    """FlexAttention's storages: it keeps its inputs as they lie, its output and a sum for each query."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B, heads, N, head] each -> the same."""
        out, sums = torch.empty_like(q), torch.empty_like(q[..., 0], dtype=torch.float32)
        ctx.save_for_backward(q, k, v, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Gradients of q, k and v."""
        q, k, v, _, sums = ctx.saved_tensors
        delta = torch.empty_like(sums)
        gradients = tuple(torch.empty_like(x) for x in (q, k, v))
        del delta
        return gradients


def _normalise_in_fp32(model: nn.Module) -> None:
    """CUDA's autocast normalises in fp32 and keeps that input, a CPU's does not: the one difference in this model."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(lambda _, given: (given[0].float(),))
