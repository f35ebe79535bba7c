"""Decoding: a random chunk out of a shard against the same clip with a key frame every 250 frames.

    mirasol bench decode [--json FILE] [--rounds 5] [--quick]

Clips are 256 frames of 224 px in chunks of 8, of made-up film (`film.py`). `random_chunk` is processor time for the
frames of one chunk of one clip, both drawn: from the shard through its index, with JSON and hash checked, against a
file of the same frames and encoder settings except the key frames, opened, sought and decoded up to the end of the
chunk. Both give an array of the same shape. `frames_decoded_per_wanted` counts the packets that the shard's decoder
gets.
"""

from __future__ import annotations

import dataclasses
import tempfile
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import numpy as np
import torch
from common import Work, arguments, exact, in_turn, ratio, report, rounded, spread, table
from film import RATE, write_film
from numpy.typing import NDArray
from shards import CRF, SPEC, data_of, stage_into

from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.shards.codec import encoder_options
from mirasol.media.clip import ClipSpec
from mirasol.media.resample import center_crop

GOP = 250
Draws = list[tuple[int, int]]  # numbers of clip and chunk


def write_long_gop(path: Path, frames: NDArray[np.uint8], spec: ClipSpec, usual: bool) -> None:
    """The same pictures, with the shards' options but for the key frames, or with those that x264 has by default."""
    options = encoder_options(dataclasses.replace(spec, frames_per_chunk=GOP), CRF)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options={"crf": str(CRF)} if usual else options)
        stream.width = stream.height = spec.size
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
        container.mux(stream.encode(None))


def from_file(path: Path, chunk: int, spec: ClipSpec) -> tuple[NDArray[np.uint8], int]:
    """The K frames of a chunk by seeking, and how many frames came out of the decoder for them."""
    found: list[NDArray[np.uint8]] = []
    decoded = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None
        first = round(chunk * spec.chunk_seconds / stream.time_base)
        container.seek(first, stream=stream, backward=True)
        for frame in container.decode(stream):
            decoded += 1
            if frame.pts is not None and frame.pts >= first:
                found.append(center_crop(frame, spec.size))
                if len(found) == spec.frames_per_chunk:
                    break
    return np.stack(found), decoded


def from_files(paths: list[Path], draws: Draws, spec: ClipSpec) -> None:
    for clip, chunk in draws:
        from_file(paths[clip], chunk, spec)


def from_shards(shards: ShardDataset, draws: Draws) -> None:
    for clip, chunk in draws:
        shards.chunk(clip, chunk)


class Counting:
    """Counts the packets on their way to FFmpeg's decoder."""

    packets = 0

    def __init__(self, decoder: Any) -> None:
        self.__dict__["decoder"] = decoder

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.decoder, name, value)

    def decode(self, packet: Any) -> Any:
        Counting.packets += packet is not None
        return self.decoder.decode(packet)


def packets_given(shards: ShardDataset, draws: Draws) -> int:
    """To all decoders that reading ``draws`` makes."""
    create = av.CodecContext.create
    Counting.packets = 0
    with patch("mirasol.data.shards.chunk_codec.av") as replaced:
        replaced.Packet = av.Packet
        replaced.CodecContext.create = lambda *a: Counting(create(*a))
        from_shards(shards, draws)
    return Counting.packets


def main() -> None:
    """Measure, print, and write the figures where ``--json`` says."""
    options = arguments(__doc__).parse_args()
    torch.set_num_threads(1)
    ratios, figures = {}, {}
    spec = dataclasses.replace(SPEC, chunks=4 if options.quick else 32)  # 256 frames: longer than the GOP
    films, reads = (1, 8) if options.quick else (2, 64)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data" / "media").mkdir(parents=True)
        sources = [folder / "data" / "media" / f"{number}.mp4" for number in range(films + 1)]  # the last for val
        for number, source in enumerate(sources):
            write_film(source, number, 2 * spec.frames)
        shards = ShardDataset(stage_into(data_of(folder / "data", sources, spec), folder / "shards", spec), "train")
        paths: dict[str, list[Path]] = {"gop_250": [], "x264_defaults": []}
        for clip in range(len(shards)):
            frames = np.concatenate([shards.chunk(clip, chunk) for chunk in range(spec.chunks)])
            for kind, those in paths.items():
                those.append(folder / f"{kind}-{clip}.mp4")
                write_long_gop(those[-1], frames, spec, usual=kind == "x264_defaults")
        random = np.random.default_rng(0)
        draws = [(int(random.integers(len(shards))), int(random.integers(spec.chunks))) for _ in range(reads)]
        wanted = reads * spec.frames_per_chunk

        works: dict[str, Work] = {"shard": partial(from_shards, shards, draws)}
        works |= {kind: partial(from_files, those, draws, spec) for kind, those in paths.items()}
        taken = in_turn(works, options.rounds)
        ratios["random_chunk"] = ratio(taken["gop_250"], taken["shard"])
        ratios["frames_decoded_per_wanted"] = exact(packets_given(shards, draws) / wanted)
        figures["ms_a_chunk"] = {kind: rounded(min(seconds) * 1e3 / reads) for kind, seconds in taken.items()}
        figures["against_x264_defaults"] = ratio(taken["x264_defaults"], taken["shard"])
        decoded = sum(from_file(paths["gop_250"][clip], chunk, spec)[1] for clip, chunk in draws)
        figures["frames_decoded_per_wanted_at_gop_250"] = rounded(decoded / wanted)
    table([("claim", "ratio"), *((claim, spread(found)) for claim, found in ratios.items())])
    print(f"\nms a chunk: {figures['ms_a_chunk']}")
    report("decode", options.json, ratios, figures)


if __name__ == "__main__":
    main()
