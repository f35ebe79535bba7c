"""Which clip comes next, and its label: the logic of `mirasol label`, without its page."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from mirasol.core.errors import MirasolError
from mirasol.media.probe import probe_file
from mirasol.runtime.sources.files import SUFFIXES
from mirasol.serve.annotations import (
    RULES,
    SHARES,
    Annotations,
    Row,
    choose_rule,
    choose_splits,
    clean_answer,
    group_of,
    mixed,
    neediest,
)

log = logging.getLogger("mirasol.serve")
WAITING, READY, UNREADABLE = "waiting", "ready", "unreadable"


class Proposal(NamedTuple):
    """A model's answer for a person to accept or correct."""

    text: str  # "" if the model has none
    score: float  # probability, 0 to 1
    margin: float  # probability less that of the next best answer, 0 to 1: small means unsure
    why: str = ""  # the model has no answer
    flags: tuple[str, ...] = ()  # remarks, such as that the question is unlike any that was learnt


Propose = Callable[[Path], Proposal]


@dataclass(frozen=True)
class Clip:
    """A file to label."""

    media: str
    group: str
    split: str
    state: str = WAITING  # READY once its header and first frame were read
    reason: str = ""  # of UNREADABLE
    proposal: Proposal | None = None


class Labels:
    """The clips of a folder and their labels for one question; any thread may call.

    Three of five labels go to train, the least sure clip of the model first; one each to val and test, in a random
    order that the model has no part in: clips chosen for being hard would make a test too hard.

    Args:
        folder: the clips, also in folders below it.
        out: the annotations, continued if the file exists.
        question: the prompt of all clips.
        answers: the first entries of the choices; answers of the file and new ones follow.
        propose: the model's answer about a file; ``None`` for no proposals.
        group_by: one of RULES; empty chooses.

    Raises:
        MirasolError: the folder holds no clip, or the annotations cannot be continued.
    """

    def __init__(
        self,
        folder: Path,
        out: Path,
        question: str,
        *,
        answers: Sequence[str] = (),
        propose: Propose | None = None,
        group_by: str = "",
    ) -> None:
        if not folder.is_dir():
            raise MirasolError(f"{folder}: no such folder: name the folder with the clips to label")
        if not question.strip():
            raise MirasolError("the question is empty: ask, for example, 'Which sound is heard?'")
        self.folder, self.question, self._propose = folder, " ".join(question.split()), propose
        names, bad = find_media(folder)
        if not names:
            raise MirasolError(f"{folder}: holds no clip (looked for {', '.join(sorted(SUFFIXES))})")
        self._turn = threading.RLock()
        self._stop = threading.Event()
        self._answers: list[str] = []
        for answer in answers:
            if (cleaned := clean_answer(answer, self._answers)) not in self._answers:
                self._answers.append(cleaned)
        self.annotations = Annotations(out)
        try:
            rows = self.annotations.rows
            self.rule = choose_rule(names, rows, group_by)
            groups = {name: group_of(name, self.rule) for name in names} | {row.media: row.group for row in rows}
            splits = choose_splits(Counter(groups[name] for name in names), {row.group: row.split for row in rows})
            self._clips = {name: Clip(name, groups[name], splits[groups[name]]) for name in sorted(names, key=mixed)}
            self._clips |= {name: Clip(name, name, "train", UNREADABLE, reason) for name, reason in bad.items()}
            self._refuse_foreign(rows)
        except BaseException:
            self.annotations.close()
            raise
        self._done = {row.media: row.answers for row in rows if row.prompt == self.question}
        self._actions = list(self._done)  # what undo takes back, the last first
        self._skipped: set[str] = set()
        self._current = ""  # stays on show while other clips become ready
        self._worker = threading.Thread(target=self._look, name="mirasol-label", daemon=True)

    def _refuse_foreign(self, rows: Sequence[Row]) -> None:
        foreign = sorted({row.media for row in rows} - self._clips.keys())
        if foreign:
            raise MirasolError(
                f"{self.annotations.path}: {len(foreign)} of its clips are not in {self.folder}, {foreign[0]} the "
                "first: name the folder that it was made with, or begin another file with --out"
            )

    def start(self) -> None:
        """Begin to look at the clips, in a thread."""
        self._worker.start()

    def close(self) -> None:
        """Stop looking, and let another process have the annotations."""
        self._stop.set()
        if self._worker.is_alive():
            self._worker.join(timeout=5.0)
        self.annotations.close()

    @property
    def answers(self) -> list[str]:
        """The choices, the same for all clips: those given, then others in the order of their first use."""
        return list(dict.fromkeys([*self._answers, *self._done.values()]))

    def path_of(self, media: str) -> Path:
        """The file of a clip; raises MirasolError for any other name."""
        if media not in self._clips:
            raise MirasolError(f"{media[:200]!r} is not one of the clips")
        return self.folder / media

    def look_at(self, media: str) -> None:
        """Check a clip, and have the model answer about it."""
        path = self.folder / media
        status = probe_file(path, upto=0.0)
        found: dict[str, Any] = {"state": READY}
        if status.kind == "rejected":
            found = {"state": UNREADABLE, "reason": status.reason.replace(f"{path}: ", "")}
        elif self._propose is not None:
            try:
                found["proposal"] = self._propose(path)
            except MirasolError as error:  # the model needs more of a clip than the eye
                found["proposal"] = Proposal("", 0.0, 0.0, str(error).replace(f"{path}: ", ""))
        with self._turn:
            self._clips[media] = replace(self._clips[media], **found)

    def _look(self) -> None:
        for media, clip in list(self._clips.items()):
            if self._stop.is_set():
                return
            if clip.state == WAITING and media not in self._done:
                try:
                    self.look_at(media)
                except Exception as error:  # the other clips can still be labelled
                    log.exception("%s", media)
                    with self._turn:
                        self._clips[media] = replace(clip, state=UNREADABLE, reason=str(error))

    def label(self, media: str, answer: str) -> None:
        """Accept ``answer`` for the clip on show; it is on disk afterwards.

        Raises:
            MirasolError: the answer cannot be used, another clip is on show, or the file cannot be written.
        """
        with self._turn:
            self._check_current(media)
            answer = clean_answer(answer, self.answers)
            clip = self._clips[media]
            row = Row(media, self.question, answer, clip.group, clip.split)
            self.annotations.write([*self.annotations.rows, row])
            self._done[media] = answer
            self._actions.append(media)
            self._current = ""

    def skip(self, media: str) -> None:
        """Leave the clip on show without a label until the next start; raises MirasolError if another is on show."""
        with self._turn:
            self._check_current(media)
            self._skipped.add(media)
            self._actions.append(media)
            self._current = ""

    def undo(self) -> None:
        """Take back the last label or skip, and show its clip again.

        Raises:
            MirasolError: nothing is left to undo, or the file cannot be written.
        """
        with self._turn:
            if not self._actions:
                raise MirasolError("nothing is left to undo")
            media = self._actions[-1]
            if media in self._done:
                key = (media, self.question)
                self.annotations.write([row for row in self.annotations.rows if (row.media, row.prompt) != key])
                del self._done[media]
            self._skipped.discard(media)
            self._actions.pop()
            self._clips[media] = replace(self._clips[media], state=READY)
            self._current = media

    def _check_current(self, media: str) -> None:
        if not media or media != self._pick():
            raise MirasolError(f"{media[:200]!r} is not the clip on show: label in one tab only, and reload the page")

    def _pick(self) -> str:
        """The clip on show, "" if none is ready."""
        if not self._current:
            have = Counter(dict.fromkeys(SHARES, 0))
            have.update(self._clips[media].split for media in self._done)
            left = [
                clip
                for clip in self._clips.values()
                if clip.state == READY and clip.media not in self._done and clip.media not in self._skipped
            ]
            splits = {clip.split for clip in left}
            if left:
                split = neediest({split: have[split] for split in SHARES if split in splits})
                self._current = min((clip for clip in left if clip.split == split), key=urgency).media
        return self._current

    def state(self) -> dict[str, Any]:
        """All that the page shows, as JSON holds it."""
        with self._turn:
            current = self._pick()
            clips = self._clips.values()
            usable = [clip for clip in clips if clip.state != UNREADABLE]
            waiting = sum(clip.state == WAITING and clip.media not in self._done for clip in clips)
            clip = self._clips[current] if current else None
            labelled = Counter(self._clips[media].split for media in self._done)
            return {
                "folder": str(self.folder),
                "out": str(self.annotations.path),
                "question": self.question,
                "answers": self.answers,
                "proposes": self._propose is not None,
                "clip": None if clip is None else _shown(clip),
                "total": len(usable),
                "labelled": len(self._done),
                "skipped": len(self._skipped),
                "waiting": waiting,
                "splits": {split: labelled[split] for split in SHARES},
                "counts": dict(Counter(self._done.values())),
                "unreadable": [{"media": c.media, "reason": c.reason} for c in clips if c.state == UNREADABLE],
                "undo": self._actions[-1] if self._actions else None,
                "groups": len({clip.group for clip in usable}),
                "rule": RULES[self.rule],
            }


def urgency(clip: Clip) -> tuple[float, bytes]:
    """The order within a split: in train the model's least margin first, elsewhere at random."""
    sure = clip.proposal is not None and clip.split == "train"
    return (clip.proposal.margin if sure and clip.proposal else 0.0, mixed(clip.media))


def find_media(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Media files below ``folder``, and the reasons against names that a manifest cannot hold."""
    names, bad = [], {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() not in SUFFIXES or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if not path.is_file():
            continue
        good = name.isprintable() and "\\" not in name and not name.startswith("~") and name == name.strip()
        if good:
            names.append(name)
        else:
            shown = name.encode("utf-8", "replace").decode()
            bad[shown] = "the name holds a backslash, a leading ~ or space, or invisible characters: rename the file"
    return names, bad


def _shown(clip: Clip) -> dict[str, Any]:
    proposal = clip.proposal
    return {
        "media": clip.media,
        "group": clip.group,
        "split": clip.split,
        "proposal": None
        if proposal is None
        else {name: getattr(proposal, name) for name in ("text", "score", "why", "flags")},
    }
