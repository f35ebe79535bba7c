"""Input that does not fit is refused with both values, with `python -O` too."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.model import random_batch, tiny_config, tiny_model

from mirasol.model.attention.chunk_causal import chunk_causal_attention
from mirasol.model.attention.visible import Visible
from mirasol.model.mirasol import Mirasol
from mirasol.model.streaming import EncoderCombiner, Latent, Text, reset

NOTHING = torch.zeros(1, 2, 3, dtype=torch.bool)


def batches(**changes: Callable) -> Callable[[], object]:
    """The losses of a batch of which some tensors were changed."""

    def run() -> object:
        model = tiny_model()
        batch = random_batch(model.config)
        return model(dataclasses.replace(batch, **{name: f(getattr(batch, name)) for name, f in changes.items()}))

    return run


def configs(**changes: object) -> Callable[[], object]:
    """A model of another config."""
    return lambda: Mirasol(tiny_config(**changes))


def chunk(**changes: Callable) -> Callable[[], object]:
    """A step with one chunk of which some tensors were changed."""

    def run() -> object:
        model = tiny_model()
        batch, step = random_batch(model.config), EncoderCombiner(model)
        names = ("video", "audio", "video_present", "audio_present")
        inputs = [changes.get(name, lambda x: x)(getattr(batch, name)[:, 0]) for name in names]
        return step(*inputs, step.init_state(2))

    return run


def text_step(token: int = 1, length: int = 0, slots: int = 48, dtype: torch.dtype = torch.int64) -> object:
    """A step of the text model."""
    text = Text(tiny_model())
    state = text.init_state(1)
    state["length"] += length
    memory, valid = torch.zeros(1, slots, 24), torch.ones(1, slots, dtype=torch.bool)
    return text(torch.tensor([token], dtype=dtype), memory, valid, state)


CASES: dict[str, tuple[Callable[[], object], str]] = {
    "chunks of sound": (
        batches(audio=lambda x: x[:, :3]),
        r"audio has shape \(2, 3, 8, 8\), expected \(2, 4, 8, 8\)",
    ),
    "chunks of presence": (
        batches(audio_present=lambda x: x[:, :3]),
        r"audio_present has shape \(2, 3\), expected \(2, 4\)",
    ),
    "no chunk": (
        batches(**dict.fromkeys(("video", "audio", "video_present", "audio_present"), lambda x: x[:, :0])),
        "a clip of 0 chunks, expected at least 1",
    ),
    "K": (batches(video=lambda x: x[:, :, :3]), r"video has shape \(2, 4, 3, 24, 16\), expected \(2, 4, 4, 24, 16\)"),
    "columns of sound": (  # this is where another sample rate, hop or length of a chunk would show
        batches(audio=lambda x: x[:, :, :6]),
        r"audio has shape \(2, 4, 6, 8\), expected \(2, 4, 8, 8\)",
    ),
    "mels": (batches(audio=lambda x: x[..., :4]), r"audio has shape \(2, 4, 8, 4\), expected \(2, 4, 8, 8\)"),
    "texts": (batches(tokens=lambda x: x[:1]), r"tokens has shape \(1, 2, 8\), expected \(2, 2, 8\)"),
    "texts without Q": (batches(tokens=lambda x: x[0]), r"tokens has shape \(2, 8\), expected \[B, Q, L\]"),
    "video type": (batches(video=lambda x: x.float()), r"video is torch\.float32, expected torch\.uint8"),
    "audio type": (batches(audio=lambda x: x.double()), r"audio is torch\.float64, expected torch\.float32"),
    "presence type": (
        batches(video_present=lambda x: x.long()),
        r"video_present is torch\.int64, expected torch\.bool",
    ),
    "token type": (batches(tokens=lambda x: x.int()), r"tokens is torch\.int32, expected torch\.int64"),
    "device": (batches(audio=lambda x: x.to("meta")), "audio is on meta, the model on cpu: move the batch there"),
    "text device": (batches(tokens=lambda x: x.to("meta")), "tokens is on meta, the model on cpu"),
    "no answer": (
        batches(answer_mask=torch.zeros_like),
        "answer_mask marks 0 of 28 tokens behind the first, expected at least 1",
    ),
    "long text": (
        batches(
            tokens=lambda x: torch.cat([x, x], dim=2),
            answer_mask=lambda x: torch.cat([x, x], dim=2),
        ),
        "texts of 15 tokens, the text cache holds 12",
    ),
    "combiner": (configs(combiner="mean"), "'mean', expected one of"),
    "latent": (configs(latent="some"), "'some', expected one of"),
    "queries": (configs(queries="first"), "'first', expected one of"),
    "m > n": (configs(num_queries=99), "m = 99 combined features of a chunk that has n = 10"),
    "cls and pooled": (
        configs(combiner="cls", queries="pooled"),
        r"queries 'pooled' with combiner 'cls': expected queries 'last', or one of the combiners \('transformer', .*\)",
    ),
    "concat and pooled": (configs(combiner="concat", queries="pooled"), "queries 'pooled' with combiner 'concat'"),
    "widths": (
        configs(latent_sizes=dataclasses.replace(tiny_config().latent_sizes, width=16)),
        "latent width 16, combiner width 24",
    ),
    "long tube": (configs(frames_per_chunk=2), "tube 4x8x8 is 4 frames long, a chunk has 2"),
    "step K": (chunk(video=lambda x: x[:, :3]), r"video has shape \(2, 3, 24, 16\), expected \(2, 4, 24, 16\)"),
    "step sound": (chunk(audio=lambda x: x[:, :3]), r"audio has shape \(2, 3, 8\), expected \(2, 8, 8\)"),
    "step presence": (chunk(video_present=lambda x: x[:1]), r"video_present has shape \(1,\), expected \(2,\)"),
    "step type": (chunk(audio=lambda x: x.half()), r"audio is torch\.float16, expected torch\.float32"),
    "step device": (chunk(video=lambda x: x.to("meta")), "video is on meta, the model on cpu"),
    "step x": (
        lambda: Latent(tiny_model())(torch.zeros(1, 2, 24), {}),
        r"x has shape \(1, 2, 24\), expected \(1, 3, 24\)",
    ),
    "memory": (lambda: text_step(slots=9), r"memory has shape \(1, 9, 24\), expected \(1, 48, 24\)"),
    "token": (lambda: text_step(dtype=torch.int32), r"token is torch\.int32, expected torch\.int64"),
    "full text cache": (lambda: text_step(length=12), "token 13 of a text, the text cache holds 12"),
    "reset of other rows": (
        lambda: reset({"memory": torch.ones(3, 2)}, torch.ones(1, dtype=torch.bool)),
        r"mask is torch\.bool \(1,\), expected torch\.bool \[B\], B = \[3\]",
    ),
    "reset type": (
        lambda: reset({"memory": torch.ones(3, 2)}, torch.ones(3, dtype=torch.int64)),
        r"mask is torch\.int64 \(3,\), expected torch\.bool \[B\]",
    ),
    "a mask that hides everything": (
        lambda: chunk_causal_attention(*torch.ones(3, 1, 2, 3, 1, 4), 2, Visible(NOTHING, NOTHING)),
        r"visible\.own hides every key of 2 chunk\(s\), expected at least one that is seen in each",
    ),
    "bidirectional stream": (
        lambda: Latent(tiny_model(latent="bidirectional")).init_state(1),
        "'bidirectional' sees the chunks to come and cannot stream: run whole clips, or train with `model.latent`",
    ),
    "bidirectional step": (
        lambda: Latent(tiny_model(latent="bidirectional"))(torch.zeros(1, 3, 24), {}),
        "cannot stream",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused(case: str) -> None:
    run, message = CASES[case]
    with pytest.raises(ValueError, match=message):
        run()


OPTIMISED = """
import re
from test_bad_input import CASES
assert False, "python -O is not on"
for name, (run, message) in CASES.items():
    try:
        run()
    except ValueError as error:
        if not re.search(message, str(error)):
            raise SystemExit(f"{name}: {error}")
    else:
        raise SystemExit(f"{name}: nothing was raised")
print(len(CASES))
"""


def test_they_are_refused_under_python_o_too() -> None:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-O", "-c", OPTIMISED],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(len(CASES)), done.stdout + done.stderr
