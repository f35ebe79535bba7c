"""The graphs of a bundle: which part of the model each is, and what goes in and out.

A step is one chunk (encoder-combiner, latent) or one token (text) with everything that it remembers
as named inputs and outputs. Dimensions are fixed and the batch is 1: a session is one stream, and a
graph without dynamic shapes is what engines optimise best. The first step is the same graph as every
other: it is given the initial states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mirasol.core.errors import MirasolError
from mirasol.export.audio import AudioStep
from mirasol.media.clip import ClipSpec
from mirasol.model.chunk_transformer import StreamState
from mirasol.model.mirasol import Mirasol
from mirasol.model.streaming import EncoderCombiner, Latent, Text
from mirasol.runtime.contract import AUDIO, ENCODER_COMBINER, LATENT, TEXT, GraphSpec, StateSpec, TensorSpec

Inputs = tuple[Tensor, ...]
Step = Callable[[Inputs, StreamState], tuple[Tensor, StreamState]]


class FlatStep(nn.Module):
    """A step whose states are positional arguments behind its inputs and results behind its output."""

    def __init__(self, part: nn.Module, step: Step, inputs: int, states: tuple[str, ...]) -> None:
        super().__init__()
        self.part = part
        self.step = step
        self.inputs = inputs
        self.states = states

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """``inputs`` tensors, then the states -> the output, then the states after the step."""
        state = dict(zip(self.states, tensors[self.inputs :], strict=True))
        output, after = self.step(tensors[: self.inputs], state)
        return output, *(after[name] for name in self.states)


@dataclass(frozen=True)
class StepGraph:
    """A graph before it is exported."""

    name: str
    module: FlatStep
    spec: GraphSpec
    state: StreamState  # before the first step, batch 1

    def example(self) -> tuple[Tensor, ...]:
        """Arguments of the right shapes: zeros, and the initial states."""
        count = len(self.spec.inputs) - len(self.state)
        zeros = [torch.zeros(t.shape, dtype=getattr(torch, t.dtype)) for t in self.spec.inputs[:count]]
        return *zeros, *self.state.values()


def step_graphs(model: Mirasol) -> list[StepGraph]:
    """The three graphs of ``model``, which must be in eval mode, on the CPU and in float32.

    Raises:
        MirasolError: the model cannot stream.
        ValueError: the model is in training mode, or a state does not begin with one value everywhere.
    """
    if model.training:
        raise ValueError("the model is in training mode, expected eval mode: call model.eval()")
    c = model.config
    aligned, latent, text = EncoderCombiner(model), Latent(model), Text(model)
    try:
        latent_state = latent.init_state(1, "cpu", torch.float32)
    except ValueError as error:
        raise MirasolError(f"there are no steps to export: {error}") from error
    x = TensorSpec("x", "float32", (1, c.combined, c.combiner_sizes.width), "features")
    h = TensorSpec("h", "float32", (1, c.combined, c.latent_sizes.width), "features")
    memory = c.max_chunks * c.combined
    return [
        _graph(
            ENCODER_COMBINER,
            aligned,
            lambda i, state: aligned.step(i[0], i[1], i[2], i[3], state),
            aligned.init_state(1, "cpu", torch.float32),
            (
                TensorSpec("video", "uint8", (1, c.frames_per_chunk, c.size * 3 // 2, c.size), "video"),
                TensorSpec("audio", "float32", (1, c.audio_columns, c.mels), "audio"),
                TensorSpec("video_present", "bool", (1,), "presence"),
                TensorSpec("audio_present", "bool", (1,), "presence"),
            ),
            x,
        ),
        _graph(
            LATENT,
            latent,
            lambda i, state: latent.step(i[0], state),
            latent_state,
            (x,),
            h,
        ),
        _graph(
            TEXT,
            text,
            lambda i, state: text.step(i[0], state, i[1], i[2]),
            text.init_state(1, "cpu", torch.float32),
            (
                TensorSpec("token", "int64", (1,), "token"),
                TensorSpec("memory", "float32", (1, memory, c.latent_sizes.width), "memory"),
                TensorSpec("memory_valid", "bool", (1, memory), "memory"),
            ),
            TensorSpec("logits", "float32", (1, c.vocabulary), "logits"),
        ),
    ]


def audio_graph(clip: ClipSpec) -> StepGraph:
    """The front end: the samples of a chunk -> `audio` of the encoder-combiner.

    Raises:
        ValueError: a chunk is shorter than a frame's hop.
    """
    audio = AudioStep(clip)
    return _graph(
        AUDIO,
        audio,
        lambda i, state: audio.step(i[0], i[1], state),
        audio.init_state(),
        (
            TensorSpec("samples", "float32", (1, audio.samples), "samples"),
            TensorSpec("count", "int64", (1,), "count"),
        ),
        TensorSpec("audio", "float32", (1, audio.columns, clip.mels), "audio"),
    )


def _graph(
    name: str, part: nn.Module, step: Step, state: StreamState, inputs: tuple[TensorSpec, ...], output: TensorSpec
) -> StepGraph:
    before, after, pairs = [], [], []
    for key, tensor in state.items():
        first = float(tensor.flatten()[0])
        if not bool((tensor == first).all()):
            raise ValueError(f"{name}: state {key} begins with more than one value; the contract states only one")
        dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
        before.append(TensorSpec(key, dtype, shape, "state"))
        after.append(TensorSpec(f"{key}_next", dtype, shape, "state"))
        pairs.append(StateSpec(key, f"{key}_next", first))
    spec = GraphSpec(f"{name}.onnx", (*inputs, *before), (output, *after), tuple(pairs))
    return StepGraph(name, FlatStep(part, step, len(inputs), tuple(state)), spec, state)
