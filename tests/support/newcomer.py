"""The folders that documents and examples speak of: videos with annotations, published sets, tars, predictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from support.annotations import SMALL, write
from support.media import tone, write_media
from support.wordnet import write_wordnet
from webdataset import TarWriter

from mirasol.core.files import write_json
from mirasol.runtime.releases import bundle_hash
from mirasol.tasks.drone import SOUND_OF

ANSWERS = ("bell", "buzz")
TARS = 10  # {00000..00009}.tar


def write_home(home: Path) -> Path:
    """A home folder with the user's own videos and the published sets."""
    clip = write_media(home / "clip.mkv", frames=16, size=(48, 48), sound=tone(2.0, 16000), rate=16000)
    for name, count in (("videos", 12), ("kitchen", 12), ("clips", 2)):
        media = [f"{number}.mp4" for number in range(count)]
        _copies(clip, home / name, media)
        rows = [f"{path},which sound is heard?,{ANSWERS[i % 2]},group{i}" for i, path in enumerate(media)]
        if name != "clips":
            (home / name / "annotations.csv").write_text("\n".join(["media,prompt,answers,group", *rows]) + "\n")
    for name in ("msrvtt-qa", "nextqa-oe", "epic-sounds", "vggsound"):
        write(home / name, SMALL[name])
    rows = [{"answer": "dog", "id": 7, "question": "what runs?", "video_id": 1301}]
    write(home / "msvd-qa", {"train_qa.json": rows, "test_qa.json": rows})
    _copies(clip, home / "MSRVTT/all", [f"video{number}.mp4" for number in (0, 1, 2, 7010, 7011)])
    videos = ["aaaaaaaaaaa_000001.mp4", "aaaaaaaaaaa_000011.mp4", "bbbbbbbbbbb_000001.mp4"]
    _copies(clip, home / "vggsound/clips", videos)
    listed = [f"{chr(97 + i) * 11},{i},{label},{split}" for i, (label, split) in enumerate(VGG)]
    write(home / "vgg", {"vggsound.csv": "\n".join(listed) + "\n"})
    _copies(clip, home / "vgg/clips", [f"{chr(97 + i) * 11}_{i:06}.mp4" for i in range(len(VGG) - 1)])
    for kind in SOUND_OF:
        _copies(clip, home / "drone/video", [f"V_{kind}_{number:03}.mp4" for number in range(1, 6)])
    sound = write_media(home / "sound.flac", sound=tone(0.5))
    _copies(
        sound, home / "drone/audio", [f"{kind}_{n:03}.flac" for kind in set(SOUND_OF.values()) for n in range(1, 6)]
    )
    _copies(sound, home / "fsdd/recordings", [f"{digit}_jackson_{take}.wav" for digit in (0, 1) for take in range(8)])
    write_wordnet(home / "wordnet")
    return home


VGG = [("dog barking", "train"), ("cat purring", "train"), ("dog barking", "test"), ("cat purring", "test")]


def write_inbox(folder: Path, home: Path) -> Path:
    """A folder with an annotation file and tars, to import from."""
    shutil.copy(home / "videos/annotations.csv", folder / "clips.csv")
    sample = {"mp4": (home / "clip.mkv").read_bytes(), "json": json.dumps({"caption": "a clip"}).encode()}
    for name in ("tars", "clips"):
        (folder / name).mkdir()
        for number in range(TARS):
            with TarWriter(str(folder / name / f"{number:05}.tar"), encoder=False) as tar:
                tar.write({"__key__": f"{number:05}0000"} | sample)
    return folder


def add_predictions(root: Path) -> None:
    """Answers of other models to a few questions of published sets, in files of a project."""
    answers = {"msrvtt-100": "dog", "msrvtt-101": "man", "msrvtt-102": "cat", "msrvtt-103": "two"}
    _predictions(root / "runs/msrvtt.jsonl", answers)
    _predictions(root / "scores/msrvtt-qa/predictions.jsonl", answers)
    _predictions(root / "scores/msvd-qa/predictions.jsonl", {"msvd-7": "dog"})
    names = ("11_0", "11_1", "12_0", "12_1")
    _predictions(root / "scores/nextqa-oe/predictions.jsonl", dict.fromkeys(names, "two"))


def add_releases(root: Path) -> None:
    """Three releases of the project's bundle."""
    for number in (1, 2, 3):
        folder = root / "runs/releases" / f"model-{number}"
        shutil.copytree(root / "build/bundle", folder)
        facts = {"commit": str(number) * 40, "metrics": {}, "bundle": bundle_hash(folder), "date": ""}
        write_json(folder / "release.json", facts)


def _predictions(path: Path, answers: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"id": name, "predicted": text}) + "\n" for name, text in answers.items()))


def _copies(file: Path, folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(file, folder / name)
