"""What a data set is like, before anything is trained on it: clips, seconds, frames, sound, questions, balance.

Headers and first frames are read, of a sample of the media; nothing is decoded whole.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mirasol.core.errors import MirasolError
from mirasol.core.progress import Progress
from mirasol.data.manifest import SPLITS, UNLABELLED, Clip, Example, clips_of, lacking_split, needed_splits

PROBED = 400  # media that are opened, evenly spaced
SHOWN = 8  # answers of a question


@dataclass(frozen=True)
class Spread:
    """Smallest, median, 90th percentile and largest of a figure; zeros where it is unknown."""

    low: float = 0.0
    middle: float = 0.0
    most: float = 0.0
    high: float = 0.0

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if not values:
            return cls()
        ends = np.quantile(np.asarray(values, np.float64), (0.0, 0.5, 0.9, 1.0)).round(3)
        return cls(*map(float, ends))


@dataclass(frozen=True)
class Question:
    """One prompt of task ``qa``: its rows, and how often each answer is the first one."""

    prompt: str
    rows: int
    answers: tuple[tuple[str, int], ...]  # the most frequent first

    @property
    def majority(self) -> float:
        """The share of rows that the most frequent answer gets right: the chance of the question."""
        return self.answers[0][1] / self.rows


@dataclass(frozen=True)
class Facts:
    """What :func:`probe` finds."""

    clips: dict[str, int]  # with texts, by split
    groups: int
    tasks: dict[str, int]  # rows of each
    seconds: Spread  # of a clip with texts; of all where none has any
    frames_per_second: Spread  # of those with a picture
    width: Spread
    height: Spread
    seen: float  # share of the probed media with a picture
    heard: float  # share with sound
    questions: tuple[Question, ...]  # the most frequent first
    texts_per_clip: int  # the most rows of task qa of a clip
    longest_text: int  # characters of the longest prompt with its answer
    longest_answer: int  # characters, of task qa
    characters: int  # different ones in all texts
    words: frozenset[str]  # of all texts, in lower case
    probed: int = 0
    unreadable: tuple[str, ...] = ()  # media, with the reason
    unlabelled: int = 0  # clips without texts
    lack: str = ""  # the split that a training lacks, see `manifest.lacking_split`

    @property
    def training(self) -> int:
        """Clips of the train split."""
        return self.clips.get("train", 0)

    def check_splits(self, where: str | Path) -> None:
        """Raise :class:`MirasolError` if a training lacks a split: the shards stage would, but later."""
        if self.lack:
            counts = ", ".join(f"{split} {count:,}" for split, count in self.clips.items())
            raise MirasolError(f"{where}: no row in {self.lack} (clips now: {counts})")

    def report(self) -> dict[str, Any]:
        """Plain values for `--json`, the words left out."""
        found = {name: value for name, value in vars(self).items() if name not in ("words", "lack")}
        for name in ("seconds", "frames_per_second", "width", "height"):
            found[name] = dataclasses.asdict(found[name])
        found["questions"] = [
            {"prompt": q.prompt, "rows": q.rows, "answers": dict(q.answers[:SHOWN]), "distinct": len(q.answers),
             "chance": round(q.majority, 4)} for q in self.questions
        ]  # fmt: skip
        return found | {"unreadable": list(self.unreadable)}


def probe(examples: Sequence[Example], root: Path) -> Facts:
    """The facts about ``examples``, whose media are below ``root``. Equal folders give equal facts.

    Raises:
        MirasolError: no example, or no medium that was opened can be read.
    """
    texted = [e for e in examples if e.task != UNLABELLED]
    clips = clips_of(texted or examples)
    if not clips:
        raise MirasolError(f"{root}: no example to probe")
    names = sorted({clip.media for clip in clips})
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, min(PROBED, len(names))).round().astype(int).tolist()]
    media, unreadable = _open(chosen, root)
    if not media:
        raise MirasolError(f"{root}: none of the {len(chosen)} media that were opened can be read: {unreadable[0]}")
    seen = [info for info in media.values() if info.has_video]
    asked = [e for e in examples if e.task == "qa"]
    splits = {e.split for e in examples}
    texts = [text for e in texted for text in (e.prompt, *e.answers)]
    return Facts(
        clips={s: count for s in SPLITS if texted and (count := sum(clip.split == s for clip in clips))},
        groups=len({e.group for e in examples}),
        tasks=dict(sorted(Counter(e.task for e in examples).items())),
        seconds=Spread.of([s for clip in clips if clip.media in media and (s := _seconds(clip, media[clip.media]))]),
        frames_per_second=Spread.of([float(info.fps) for info in seen if info.fps]),
        width=Spread.of([info.width for info in seen]),
        height=Spread.of([info.height for info in seen]),
        seen=round(len(seen) / len(media), 4),
        heard=round(sum(info.has_audio for info in media.values()) / len(media), 4),
        questions=tuple(_questions(asked)),
        texts_per_clip=max(sum(e.task == "qa" for e in clip.examples) for clip in clips),
        longest_text=max((len(e.prompt) + len(a) for e in texted for a in e.answers), default=0),
        longest_answer=max((len(a) for e in asked for a in e.answers), default=0),
        characters=len({letter for text in texts for letter in text}),
        words=frozenset(word.strip(".,;:!?\"'()") for text in texts for word in text.lower().split()),
        probed=len(chosen),
        unreadable=tuple(unreadable),
        unlabelled=len(clips_of(e for e in examples if e.task == UNLABELLED)),
        lack=lacking_split(needed_splits(splits, texts=any(e.answers for e in examples)), splits) or "",
    )


def _open(names: Iterable[str], root: Path) -> tuple[dict[str, Any], list[str]]:
    from mirasol.media.probe import probe_file  # PyAV takes a while to load

    found, unreadable, names = {}, [], list(names)
    with Progress("probe media", len(names), "files") as progress:
        for name in names:
            status = probe_file(root / name, upto=0.0)
            if status.info is None:
                unreadable.append(status.reason)
            else:
                found[name] = status.info
            progress.advance()
    return found, unreadable


def _seconds(clip: Clip, info: Any) -> float:
    """The length of a clip; 0 if the file does not state its own."""
    end = clip.end if clip.end is not None else info.duration
    return max(0.0, float(end) - (clip.start or 0.0)) if end else 0.0


def _questions(asked: Sequence[Example]) -> Iterable[Question]:
    counts: dict[str, Counter[str]] = {}
    for e in asked:
        counts.setdefault(e.prompt, Counter())[e.answers[0]] += 1
    for prompt, answers in sorted(counts.items(), key=lambda item: (-item[1].total(), item[0])):
        ordered = sorted(answers.items(), key=lambda item: (-item[1], item[0]))
        yield Question(prompt, answers.total(), tuple(ordered))
