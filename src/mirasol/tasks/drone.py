"""The drone detection set of Svanström et al. (2021): 4 classes of flying things seen, 3 kinds of sound.

The clips carry no sound and the recordings no picture. Pairing them **by class** is our construction
(aeroplanes and birds get `BACKGROUND` recordings), not something that was filmed: say so beside every
figure. Neighbouring numbers can come from one recording, so splits are blocks of numbers, for video and
sound alike, and no file stands in two splits.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import av

from mirasol.core.errors import MirasolError
from mirasol.core.progress import Progress
from mirasol.data.manifest import Example
from mirasol.tasks.base.writer import media_linked, refuse_world, write_data

PROMPT = "Classify the video audio clip."
SOUND_OF = {"AIRPLANE": "BACKGROUND", "BIRD": "BACKGROUND", "DRONE": "DRONE", "HELICOPTER": "HELICOPTER"}
SPLITS = (("train", 0.6), ("val", 0.75), ("test", 1.0))  # upper ends of the blocks
# Recordings that each video is paired with. Many, or a model learns which background goes with which sound.
PAIRINGS = {"train": 9, "val": 1, "test": 1}
SECONDS = 5.0  # length of a clip
STARTS = {"train": (0.0, 1.0, 2.0, 3.0, 4.0, 5.0), "val": (0.0, 5.0), "test": (0.0, 5.0)}  # of the clips of ten seconds


def import_drone(media: Path, out: Path) -> dict[str, Any]:
    """Write ``out/media/*.mp4`` (video and sound joined by class, streams copied) and the manifest with its summary.

    ``media`` holds ``video/V_<CLASS>_<NNN>.mp4`` and ``audio/<CLASS>_<NNN>.flac``.

    Returns:
        The summary, which also stands in ``out/import.json``.

    Raises:
        MirasolError: ``out`` holds the built-in world, a folder is missing, or a class has too few files for
            three splits.
    """
    refuse_world(out)
    media_linked(out, "copy")  # the joined files must not go into the folder behind a link
    videos = _by_class(media / "video", r"V_([A-Z]+)_(\d+)\.mp4")
    sounds = _by_class(media / "audio", r"([A-Z]+)_(\d+)\.flac")
    pairs = [
        (name, split, video, _blocks(sounds, SOUND_OF[name], split), index)
        for name in SOUND_OF
        for split, _ in SPLITS
        for index, video in enumerate(_blocks(videos, name, split))
    ]
    examples: list[Example] = []
    with Progress("import drone", len(pairs), "videos") as progress:
        for name, split, video, choices, index in pairs:
            for turn in range(min(PAIRINGS[split], len(choices))):
                sound = choices[(index + turn) % len(choices)]
                target = Path("media") / f"{video.stem}+{sound.stem}.mp4"
                _join(video, sound, out / target)
                examples += _clips(target, name.lower(), split, video.stem)
            progress.advance(1)
    facts = {"set": "drone", "pairing": "sound and picture were joined by class, not filmed together"}
    return write_data(out, out / "media", examples, "copy", facts)


def _by_class(folder: Path, pattern: str) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        match = re.fullmatch(pattern, path.name)
        if match:
            found.setdefault(match[1], []).append(path)
    if not found:
        raise MirasolError(
            f"{folder}: no file named like {pattern}: point --media at the folder with video/ and audio/"
        )
    return found


def _blocks(files: dict[str, list[Path]], name: str, split: str) -> list[Path]:
    """The block of ``split`` among the files of class ``name``, in the order of their numbers."""
    paths = files.get(name, [])
    low = 0.0
    for other, high in SPLITS:
        block = paths[round(low * len(paths)) : round(high * len(paths))]
        if other == split:
            break
        low = high
    if not block:
        raise MirasolError(
            f"class {name} has {len(paths)} files, too few to give the split {split} one: get the whole set"
        )
    return block


def _clips(target: Path, answer: str, split: str, group: str) -> list[Example]:
    return [
        Example(
            id=f"{target.stem}-{start:04.1f}",
            media=target.as_posix(),
            start=start,
            end=start + SECONDS,
            task="qa",
            prompt=PROMPT,
            answers=(answer,),
            split=split,
            group=group,
            family="classify",
            licence="CC0-1.0",
        )
        for start in STARTS[split]
    ]


def _join(video: Path, sound: Path, target: Path) -> None:
    """Copy the streams of both files into one mp4; nothing is encoded again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with av.open(str(video)) as a, av.open(str(sound)) as b, av.open(str(temporary), "w", format="mp4") as both:
            sources = [(a, a.streams.video[0]), (b, b.streams.audio[0])]
            streams = [both.add_stream_from_template(source) for _, source in sources]
            for (container, source), stream in zip(sources, streams, strict=True):
                for packet in container.demux(source):
                    if packet.dts is not None:
                        packet.stream = stream
                        both.mux(packet)
        temporary.replace(target)
    except av.error.FFmpegError as error:
        raise MirasolError(f"cannot join {video} and {sound}: {error}: is one of them damaged?") from error
    finally:
        temporary.unlink(missing_ok=True)
