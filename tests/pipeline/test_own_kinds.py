"""Proposed settings train: six kinds of own data go through the real stages, a few steps each."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from support.media import tone, write_media

ROOT = Path(__file__).parents[2]


class Kind(NamedTuple):
    """How its clips are made."""

    clips: int = 30
    seconds: float = 2.0
    fps: int = 8
    seen: bool = True
    heard: bool = True
    rare: int = 2  # every how many clips has the second answer


KINDS = {
    "30 clips": Kind(),
    "300 clips": Kind(clips=300, seconds=1.0),
    "sound only": Kind(seen=False, seconds=0.5),
    "silent": Kind(heard=False),
    "60 s clips": Kind(seconds=60.0, fps=2),
    "unbalanced": Kind(clips=60, rare=12),
}


def make(folder: Path, kind: Kind) -> Path:
    """Clips with annotations.csv: grey frames, and a tone that tells the answers apart."""
    folder.mkdir()
    with (folder / "annotations.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["media", "prompt", "answers"])
        for number in range(kind.clips):
            second = number % kind.rare == 0
            name = f"clip-{number:03d}" + (".mkv" if kind.seen else ".flac")
            write_media(
                folder / name,
                frames=round(kind.seconds * kind.fps) if kind.seen else 0,
                fps=kind.fps,
                size=(32, 32),
                sound=tone(kind.seconds + 0.001 * number, hertz=880 if second else 440) if kind.heard else None,
            )
            writer.writerow([name, "Which one is it?", "high" if second else "low"])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_the_proposal_trains(name: str, tmp_path: Path) -> None:
    media = make(tmp_path / "clips", KINDS[name])
    words = ("--quick", "--only", "clips", "--data", str(media), "--work", str(tmp_path / "own"))
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "own.py"), *words, "--json", str(tmp_path / "out.json")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads((tmp_path / "out.json").read_text())) == {"clips"}
