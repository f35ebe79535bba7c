"""onnxruntime, one step at a time, equals torch over the whole clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from support.bundle import CLIP, MAX_ANSWER, MAX_CHUNKS, bundle_model, tiny_bundle, write_tokenizer
from support.media import example, tone, write_media
from support.model import random_batch, tiny_model

from mirasol.data.manifest import write_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.export.config import ExportSpec
from mirasol.export.onnx import to_onnx
from mirasol.export.parity import check_parity, require_parity
from mirasol.export.signature import step_graphs
from mirasol.model.batch import Batch
from mirasol.model.generation import greedy
from mirasol.model.latent import NoLatent
from mirasol.model.mirasol import Mirasol
from mirasol.runtime.backends.onnxruntime import load
from mirasol.runtime.contract import ENCODER_COMBINER, LATENT
from mirasol.runtime.engine import Engine, relative
from mirasol.runtime.features import Inputs
from mirasol.runtime.session import Session
from mirasol.tokenizer import EOS

COMBINERS = ("transformer", "ttm")
BUNDLES = (("transformer", "causal"), ("ttm", "causal"), ("concat", "none"))  # the last one remembers nothing
# video and audio flags, repeated over the clip: both, one, the other, neither
PRESENCE = {
    "both": ((1, 1),),
    "no audio": ((1, 0),),
    "no video": ((0, 1),),
    "in turn": ((1, 1), (1, 0), (0, 1), (0, 0)),
    "late": ((0, 0), (0, 0), (1, 1), (1, 1)),
}
CHUNKS = 2 * MAX_CHUNKS + 2  # the memory has been filled and gone round


def clip_with(model: Mirasol, presence: str) -> tuple[Batch, torch.Tensor]:
    """A clip, and the flags (video, audio) of its chunks, bool [T, 2]."""
    batch = random_batch(model.config, clips=1, chunks=CHUNKS)
    flags = torch.tensor(PRESENCE[presence], dtype=torch.bool).repeat(CHUNKS, 1)[:CHUNKS]
    batch.video_present, batch.audio_present = flags[None, :, 0], flags[None, :, 1]
    return batch, flags


@pytest.mark.parametrize("presence", PRESENCE)
@pytest.mark.parametrize(("combiner", "latent"), BUNDLES)
def test_steps_equal_the_whole_clip(combiner: str, latent: str, presence: str) -> None:
    model, engine = bundle_model(combiner, latent=latent), Engine(tiny_bundle(combiner, latent), threads=1)
    batch, flags = clip_with(model, presence)
    with torch.no_grad():
        encoded = model.encode(batch)
    session = Session(engine)
    for t in range(CHUNKS):
        video_present, audio_present = (bool(flag) for flag in flags[t])
        inputs = Inputs(batch.video[:, t].numpy(), batch.audio[:, t].numpy(), video_present, audio_present)
        latents = session.push_features(inputs)
        assert relative(latents.x, encoded.x[0, t].numpy()) <= 1e-5
        assert relative(latents.h, encoded.h[0, t].numpy()) <= 1e-5
    questions = ["which sound is it", "which colour first", "is it red"]
    for question in questions:
        prompt = engine.prompt(question)
        lengths = torch.tensor([[len(prompt)]])
        ids = greedy(model.text, encoded.h, encoded.present, torch.tensor([[prompt]]), lengths, MAX_ANSWER)[0, 0]
        expected = [int(token) for token in ids][: int((ids == EOS).int().argmax()) if EOS in ids else None]
        assert list(session.answer_ids(question)) == expected


@pytest.mark.parametrize("combiner", ["cls", "perceiver", "concat"])
def test_the_steps_of_the_ablations(combiner: str, tmp_path: Path) -> None:
    """Encoder-combiner and both latent models that stream; the text step is the same for all."""
    model = bundle_model(combiner)
    steps = {}
    for latent in ("causal", "none"):
        model.latent = model.latent if latent == "causal" else NoLatent(model.config)
        for graph in step_graphs(model)[:2]:
            name = latent if graph.name == LATENT else graph.name
            if name not in steps:
                file = tmp_path / f"{name}.onnx"
                file.write_bytes(to_onnx(graph, ExportSpec().opset))
                steps[name] = (load(file, graph.spec, 1), graph)
    model = bundle_model(combiner)
    for presence in PRESENCE:
        batch, flags = clip_with(model, presence)
        with torch.no_grad():
            encoded = model.encode(batch)
        states = {name: {k: v.numpy() for k, v in graph.state.items()} for name, (_, graph) in steps.items()}

        def run(name: str, inputs: dict[str, np.ndarray], states=states) -> np.ndarray:
            step, graph = steps[name]
            outputs = step({**inputs, **states[name]})
            states[name] = {state.input: outputs[state.output] for state in graph.spec.states}
            return outputs[graph.spec.outputs[0].name][0]

        for t in range(CHUNKS):
            chunk = {"video": batch.video[:, t].numpy(), "audio": batch.audio[:, t].numpy()}
            chunk |= {"video_present": flags[t, :1].numpy(), "audio_present": flags[t, 1:].numpy()}
            x = run(ENCODER_COMBINER, chunk)
            assert relative(x, encoded.x[0, t].numpy()) <= 1e-5
            assert relative(run("causal", {"x": x[None]}), encoded.h[0, t].numpy()) <= 1e-5
            assert np.array_equal(run("none", {"x": x[None]}), x)


@torch.no_grad()
def test_steps_of_chunks_that_overlap_equal_the_whole_clip() -> None:
    model = tiny_model(overlap=2, max_chunks=MAX_CHUNKS)
    graph = step_graphs(model)[0]
    step = onnxruntime.InferenceSession(to_onnx(graph, 18), providers=["CPUExecutionProvider"])
    batch = random_batch(model.config, clips=1, chunks=CHUNKS)
    flags = torch.tensor(PRESENCE["in turn"], dtype=torch.bool).repeat(CHUNKS, 1)[:CHUNKS]
    batch.video_present, batch.audio_present = flags[None, :, 0], flags[None, :, 1]
    expected = model.encode(batch).x[0].numpy()
    states = {name: tensor.numpy() for name, tensor in graph.state.items()}
    for t in range(CHUNKS):
        names = ("video", "audio", "video_present", "audio_present")
        x, *after = step.run(None, {name: getattr(batch, name)[:, t].numpy() for name in names} | states)
        states = dict(zip(states, after, strict=True))
        assert relative(x[0], expected[t]) <= 1e-5


@pytest.mark.parametrize("combiner", COMBINERS)
def test_logits_equal_over_the_whole_text_cache(combiner: str) -> None:
    model, engine = bundle_model(combiner), Engine(tiny_bundle(combiner), threads=1)
    c = model.config
    random = np.random.default_rng(3)
    tokens = random.integers(0, c.vocabulary, c.max_text)
    h = torch.tensor(random.normal(0, 1, (1, MAX_CHUNKS, c.combined, c.latent_sizes.width)), dtype=torch.float32)
    present = torch.ones(1, MAX_CHUNKS, dtype=torch.bool)
    with torch.no_grad():
        expected = model.logits(torch.tensor(tokens)[None, None], h, present)[0, 0].numpy()
    states = engine.initial("text_step")
    memory, valid = h.flatten(1, 2).numpy(), np.ones((1, MAX_CHUNKS * c.combined), np.bool_)
    for token, row in zip(tokens, expected, strict=True):
        logits, states = engine.text(int(token), memory, valid, states)
        assert relative(logits[0], row) <= 1e-5


@pytest.mark.parametrize("combiner", COMBINERS)
def test_the_export_stage_s_check_over_shards(combiner: str, tmp_path) -> None:
    rows = []
    for number in range(9):  # with both, without sound, without a picture
        sound = None if number % 3 == 1 else tone(2.0, hertz=200 + 100 * number)
        frames = 0 if number % 3 == 2 else 16
        path = tmp_path / "media" / f"{number}.{'mp4' if frames else 'flac'}"
        write_media(path, frames=frames, size=(16, 16), sound=sound)
        media = f"media/{path.name}"
        rows += [
            example(
                number, id=f"q{number}-{q}", media=media, prompt=prompt, split=("train", "val", "test")[number // 3]
            )
            for q, prompt in enumerate(("which sound is it", "which colour first"))
        ]
    write_manifest(tmp_path / "manifest.jsonl", rows)
    build_shards(tmp_path, tmp_path / "shards", CLIP, ShardsSpec(workers=1))
    write_tokenizer(tmp_path / "tokenizer.json")
    report = check_parity(
        bundle_model(combiner),
        tiny_bundle(combiner),
        tmp_path / "shards",
        ExportSpec(clips=3),
        split="test",
        max_answer=MAX_ANSWER,
    )
    # the clip with both counts three times: as it is, muted, blanked
    assert (report["clips"], report["chunks"], report["answers"]) == (3, 5 * CLIP.chunks, 5 * 2)
    require_parity(report)


def test_a_bundle_of_another_model_is_found_out(tmp_path) -> None:
    media = write_media(tmp_path / "media" / "0.mp4", frames=16, size=(16, 16), sound=tone(2.0))
    rows = [
        example(n, id=f"q{n}", media=f"media/{media.name}", start=s, prompt="is it red", split=split)
        for n, (s, split) in enumerate(((None, "train"), (0.25, "val"), (0.5, "test")))
    ]
    write_manifest(tmp_path / "manifest.jsonl", rows)
    build_shards(tmp_path, tmp_path / "shards", CLIP, ShardsSpec(workers=1))
    report = check_parity(
        bundle_model(seed=1), tiny_bundle(), tmp_path / "shards", ExportSpec(), split="test", max_answer=MAX_ANSWER
    )
    assert report["max_relative"] > 1e-2
