"""Loading: decoding clips against PyAV alone and against the usual RGB loop, and the cost of the loader.

    mirasol bench load [--json FILE] [--rounds 5] [--quick]

CPU time of one thread, which other programs disturb less. `load_vs_decode` and `load_vs_rgb24` are
rates over the same clips (224 px, 128 frames, sound): batches for a GPU, without the cache, against PyAV
decoding the same bytes of picture and sound and dropping them, and against PyAV to rgb24 arrays. The loader's time is
all of it: reading the tar, hashes, JSON, H.264, FLAC, texts, collation; it ends at YUV frames and 16-bit sound,
from which the model makes log-mel. `load_vs_decode_logmel` is the same with log-mel by the loader, as for a CPU.
`loader_overhead` is a batch of the demo from the cache, texts and collation included, against a training step of it.
`resume_cold` is the time to the first batch at 90 % of an epoch against that at its start, from opening the shards on,
without the cache; at least 100 rounds, since they are short.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # of NumPy: its other threads wait by spinning, and that would count

import av
import numpy as np
import torch
from common import arguments, in_turn, median_ms, ratio, report, spread, table
from inputs import weighted_loss

from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.loading.loader import GlobalOrder, make_loader
from mirasol.data.loading.samples import SampleSettings
from mirasol.data.manifest import Example, read_manifest, write_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.chunk_codec import unpack_samples, unpack_video
from mirasol.data.shards.config import ShardsSpec
from mirasol.data.world.make import make_world
from mirasol.media.clip import ClipSpec
from mirasol.model.batch import Batch
from mirasol.model.config import ModelSpec
from mirasol.model.mirasol import Mirasol
from mirasol.model.sizes.presets import build_config
from mirasol.tokenizer import Tokenizer, TokenizerSpec, train_tokenizer

LARGE = ClipSpec(fps=25.0, chunks=16, frames_per_chunk=8, size=224, sample_rate=16000, mels=64, audio_bands=2)
BATCH, TEXTS = 16, 8  # of the demo
RESUMES = 100  # rounds of `resume_cold`


def write_clip(path: Path, spec: ClipSpec, seed: int) -> None:
    """A clip with texture that moves and noise that comes and goes."""
    draws = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    size = spec.size
    coarse = draws.integers(16, 236, (size // 8 + 64, size // 8 + 64)).astype(np.float32)
    texture = np.kron(coarse, np.ones((8, 8), np.float32))
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "18"})
        video.width = video.height = size
        audio = container.add_stream("flac", rate=spec.sample_rate, layout="mono", format="s16")
        for number in range(spec.frames):
            frame = np.full((size * 3 // 2, size), 128, np.uint8)
            frame[:size] = texture[number : number + size, 2 * number : 2 * number + size]
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="yuv420p")))
        container.mux(video.encode(None))
        noise = draws.normal(0, 3000, int(spec.sample_rate * spec.frames / spec.fps))
        block = av.AudioFrame.from_ndarray(noise.astype(np.int16)[None], format="s16", layout="mono")
        block.sample_rate, block.pts, block.time_base = spec.sample_rate, 0, Fraction(1, spec.sample_rate)
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))


def large_shards(folder: Path, clips: int, spec: ClipSpec) -> Path:
    """Shards of ``clips`` clips of the size ``spec``."""
    rows = []
    for number in range(clips):
        write_clip(folder / "data" / "media" / f"{number}.mp4", spec, number)
        rows.append(
            Example(
                id=str(number), media=f"media/{number}.mp4", start=None, end=None, task="qa", prompt="What?",
                answers=("noise",), split="train", group=str(number), family="noise", licence="CC0-1.0",
            )
        )  # fmt: skip
    rows.append(dataclasses.replace(rows[0], id="val", split="val", group="val"))
    write_manifest(folder / "data" / "manifest.jsonl", rows)
    build_shards(folder / "data", folder / "shards", spec, ShardsSpec(workers=1))
    return folder / "shards"


def files_of(shards: ShardDataset) -> list[tuple[bytes, bytes]]:
    """The mp4 and the FLAC of each clip."""
    return [(shards._file(i, "mp4"), shards._file(i, "flac")) for i in range(len(shards))]


def decode_only(files: list[tuple[bytes, bytes]]) -> None:
    """Picture and sound to FFmpeg's frames, which are dropped."""
    for data in itertools.chain.from_iterable(files):
        with av.open(io.BytesIO(data)) as container:
            stream = container.streams[0]
            stream.codec_context.thread_count = 1
            for _ in container.decode(stream):
                pass


def to_rgb24(files: list[tuple[bytes, bytes]]) -> None:
    """The usual loop: each frame to an RGB array, stacked, and the sound to samples."""
    for video, audio in files:
        with av.open(io.BytesIO(video)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        with av.open(io.BytesIO(audio)) as container:
            np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


def batches_of(shards: ShardDataset, folder: Path, waveform: bool) -> Iterator[Batch]:
    """Batches of all clips, as a training is fed: each is an epoch."""
    train_tokenizer(["What?", "noise"] * 8, TokenizerSpec(16, max_text=16), folder / "tokenizer.json")
    loader = make_loader(
        shards, Tokenizer.load(folder / "tokenizer.json"), SampleSettings(("qa",), 1, 1, 0.0), GlobalOrder(len(shards)),
        waveform=waveform,
    )  # fmt: skip
    return iter(loader)


def unpack(files: list[tuple[bytes, bytes]], spec: ClipSpec) -> None:
    """To YUV frames and samples in arrays, without hashes and batches: which part of the loader's time these are."""
    for video, audio in files:
        unpack_video(video, spec)
        unpack_samples(audio)


def first_batch(folder: Path, tokenizer: Tokenizer, starts: Iterator[int]) -> None:
    """Open the shards and take one batch from the next of the training samples ``starts`` on."""
    start = next(starts)
    loader = make_loader(
        ShardDataset(folder, "train"), tokenizer, SampleSettings(("qa",), 1, TEXTS, 2.0), GlobalOrder(BATCH, start)
    )
    next(iter(loader))


def demo(folder: Path, clips: int) -> tuple[Path, Tokenizer]:
    """Shards and tokenizer of a small built-in world."""
    make_world(folder / "data", clips=clips, workers=1)
    texts = [t for e in read_manifest(folder / "data" / "manifest.jsonl") for t in (e.prompt, *e.answers)]
    train_tokenizer(texts, TokenizerSpec(), folder / "tokenizer.json")
    build_shards(folder / "data", folder / "shards", ClipSpec(), ShardsSpec(workers=1))
    return folder / "shards", Tokenizer.load(folder / "tokenizer.json")


def main() -> None:
    """Measure, print, and write the figures where ``--json`` says."""
    options = arguments(__doc__).parse_args()
    torch.set_num_threads(1)
    ratios, figures = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = dataclasses.replace(LARGE, chunks=2) if options.quick else LARGE
        large = ShardDataset(large_shards(folder / "large", 2 if options.quick else 6, spec), "train")
        files = files_of(large)
        works = {
            "load": partial(next, batches_of(large, folder, waveform=True)),
            "load_logmel": partial(next, batches_of(large, folder, waveform=False)),
            "decode": partial(decode_only, files),
            "rgb24": partial(to_rgb24, files),
            "unpack": partial(unpack, files, spec),
        }
        taken = in_turn(works, options.rounds)
        frames = len(large) * spec.frames
        figures["frames_per_second"] = {n: round(frames / min(s)) for n, s in taken.items()}
        ratios["load_vs_decode"] = ratio(taken["decode"], taken["load"])
        ratios["load_vs_rgb24"] = ratio(taken["rgb24"], taken["load"])
        ratios["load_vs_decode_logmel"] = ratio(taken["decode"], taken["load_logmel"])

        shards, tokenizer = demo(folder / "demo", 60 if options.quick else 300)
        loader = make_loader(
            ShardDataset(shards, "train", cache=folder / "cache"), tokenizer,
            SampleSettings(("qa",), 1, TEXTS, 2.0, mute=0.05, blank=0.05), GlobalOrder(BATCH),
        )  # fmt: skip
        clips = len(loader.samples.clips)
        batches = iter(loader)
        for _ in range(clips // BATCH + 1):  # an epoch: all of it is in the cache now
            batch = next(batches)
        sizes = {"size": 48, "frames_per_chunk": 4, "mels": 32, "audio_columns": 16}
        texts = {"vocabulary": tokenizer.vocabulary, "max_text": tokenizer.max_text}
        network = Mirasol(build_config(ModelSpec(), **sizes, **texts))
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

        def step() -> None:
            optimizer.zero_grad()
            weighted_loss(network(batch)).backward()
            optimizer.step()

        def ten_batches() -> None:
            for _ in range(10):
                next(batches)

        taken = in_turn({"batches": ten_batches, "step": step}, options.rounds)
        ratios["loader_overhead"] = ratio([s / 10 for s in taken["batches"]], taken["step"])
        figures["demo_ms"] = {"batch": median_ms([s / 10 for s in taken["batches"]]), "step": median_ms(taken["step"])}

        # another epoch in each round, or the clips that these two batches happen to have would decide
        starts = {"cold": itertools.count(0, clips), "resumed": itertools.count(int(0.9 * clips), clips)}
        rounds = options.rounds if options.quick else max(options.rounds, RESUMES)
        taken = in_turn({n: partial(first_batch, shards, tokenizer, s) for n, s in starts.items()}, rounds)
        ratios["resume_cold"] = ratio(taken["resumed"], taken["cold"])
        figures["first_batch_ms"] = {n: median_ms(s) for n, s in taken.items()}
    table([("claim", "ratio"), *((claim, spread(found)) for claim, found in ratios.items())])
    report("load", options.json, ratios, figures)


if __name__ == "__main__":
    main()
