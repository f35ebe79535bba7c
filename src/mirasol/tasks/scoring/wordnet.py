"""WordNet from the classic database files, the part for word similarity: lemmas, first senses, Wu-Palmer.

The folder is that of Debian's ``wordnet-base`` or of Princeton's ``dict/``: ``index.POS``, ``data.POS`` and
``POS.exc`` for noun, verb, adj and adv (formats: man pages wndb(5WN) and morphy(7WN)). Similarity follows NLTK's
``wup_similarity``, the code behind published WUPS figures, including its choices among equal ancestors.
"""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from mirasol.core.errors import MirasolError

POS = ("noun", "verb", "adj", "adv")  # the order of the search for the first sense of a word
LETTERS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
_FILES = tuple(name for pos in POS for name in (f"index.{pos}", f"data.{pos}", f"{pos}.exc"))
# morphy(7WN): endings that are detached, in this order.
_ENDINGS = {
    "noun": [("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
             ("men", "man"), ("ies", "y")],
    "verb": [("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")],
    "adj": [("er", ""), ("est", ""), ("er", "e"), ("est", "e")],
    "adv": [],
}  # fmt: skip
_ROOT = ("", 0)  # above all verbs and adjectives, which have no common root
_ROOT_NAME = "*ROOT*"

Synset = tuple[str, int]  # part of speech and byte offset in its data file


@dataclass(frozen=True)
class _Entry:
    name: str  # first word, part of speech and number of the sense; it orders equals
    above: tuple[Synset, ...]  # hypernyms, those of instances too


class WordNet:
    """The database in a folder.

    Raises:
        MirasolError: files are missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise MirasolError(
                f"{folder}: not a whole WordNet database ({len(missing)} of {len(_FILES)} files missing: "
                f"{', '.join(missing[:3])}{', …' if missing[3:] else ''}): install it with `apt install "
                "wordnet-base`, or name the folder of a WordNet 3.0 `dict` with --wordnet"
            )
        self.folder = folder
        self._senses = {pos: self._read_index(pos) for pos in POS}
        self._exceptions = {pos: self._read_exceptions(pos) for pos in POS}
        self._data = {pos: (folder / f"data.{pos}").read_bytes() for pos in POS}
        self._entry = functools.cache(self._read_entry)
        self._distances = functools.cache(self._walk_up)
        self._lowest = functools.cache(self._lowest_of)
        self._highest = functools.cache(self._highest_of)

    def lemmas(self, word: str, pos: str) -> list[str]:
        """The forms of ``word`` in the database as ``pos``: itself, then its base forms (morphy)."""
        if word in self._exceptions[pos]:
            forms = [word, *self._exceptions[pos][word]]
        else:
            forms = [word, *(word[: -len(old)] + new for old, new in _ENDINGS[pos] if word.endswith(old))]
        return [form for form in dict.fromkeys(forms) if form in self._senses[pos]]

    def base(self, word: str) -> str:
        """The shortest base form of ``word`` as any part of speech, the earlier of POS where equal; else itself."""
        found = [min(forms, key=len) for pos in POS if (forms := self.lemmas(word, pos))]
        return min(found, key=len, default=word)

    def first(self, word: str) -> Synset | None:
        """The first sense of ``word``, nouns before verbs, adjectives and adverbs."""
        for pos in POS:
            for form in self.lemmas(word, pos):
                return pos, self._senses[pos][form][0]
        return None

    def wup(self, a: Synset, b: Synset) -> float:
        """The similarity of Wu and Palmer (1994): twice the depth of the lowest common ancestor over the depths
        of the two by way of it. 0 without a common ancestor."""
        rooted = {a[0], b[0]} != {"noun"}
        shared = self._distances(a, False).keys() & self._distances(b, False).keys()
        candidates = {*shared, _ROOT} if rooted else shared
        if not candidates:
            return 0.0
        deepest = max(self._lowest(s) for s in candidates)
        lowest = [s for s in candidates if self._lowest(s) == deepest]
        ancestor = a if a in lowest else min(lowest, key=lambda s: self._entry(s).name)
        depth = self._highest(ancestor) + 1
        lengths = [self._between(s, ancestor, rooted) + depth for s in (a, b)]
        return 2 * depth / sum(lengths)

    def _between(self, a: Synset, b: Synset, rooted: bool) -> int:
        """The shortest path between two synsets by way of an ancestor of both."""
        if a == b:
            return 0
        first, second = self._distances(a, rooted), self._distances(b, rooted)
        return min(first[s] + second[s] for s in first.keys() & second.keys())

    def _walk_up(self, synset: Synset, rooted: bool) -> dict[Synset, int]:
        """Ancestors, itself included, with the shortest way up to each; the common root is above the farthest."""
        if synset == _ROOT:
            return {_ROOT: 0}
        found: dict[Synset, int] = {}
        queue = deque([(synset, 0)])
        while queue:
            current, steps = queue.popleft()
            if current not in found:
                found[current] = steps
                queue.extend((above, steps + 1) for above in self._entry(current).above)
        if rooted:
            found[_ROOT] = max(found.values()) + 1
        return found

    def _lowest_of(self, synset: Synset) -> int:
        """The shortest way from a top."""
        return 1 + min((self._lowest(s) for s in self._entry(synset).above), default=-1)

    def _highest_of(self, synset: Synset) -> int:
        """The longest way from a top."""
        return 1 + max((self._highest(s) for s in self._entry(synset).above), default=-1)

    def _read_index(self, pos: str) -> dict[str, tuple[int, ...]]:
        """Lemma -> offsets of its synsets, the most frequent sense first."""
        path = self.folder / f"index.{pos}"
        senses = {}
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if line.startswith(" ") or not line:  # the licence
                continue
            cells = line.split()
            try:
                count = int(cells[2])
                offsets = tuple(int(cell) for cell in cells[len(cells) - count :])
                if count < 1 or len(cells) != 6 + int(cells[3]) + count:
                    raise ValueError("its counts do not fit its cells")
            except (ValueError, IndexError) as error:
                raise MirasolError(
                    f"{path}:{number}: not a WordNet index line ({error}): install WordNet again"
                ) from error
            senses[cells[0]] = offsets
        return senses

    def _read_exceptions(self, pos: str) -> dict[str, list[str]]:
        lines = (self.folder / f"{pos}.exc").read_text(encoding="utf-8", errors="replace").splitlines()
        return {cells[0]: cells[1:] for line in lines if (cells := line.split())}

    def _read_entry(self, synset: Synset) -> _Entry:
        if synset == _ROOT:
            return _Entry(_ROOT_NAME, ())
        pos, offset = synset
        data = self._data[pos]
        end = data.find(b"\n", offset)
        cells = data[offset : end if end >= 0 else len(data)].decode("utf-8", "replace").split("|")[0].split()
        try:
            if int(cells[0]) != offset:
                raise ValueError(f"got {cells[0]}")
            words = int(cells[3], 16)
            lemma = cells[4].split("(")[0].lower()
            start = 5 + 2 * words
            pointers = [cells[i : i + 3] for i in range(start, start + 4 * int(cells[start - 1]), 4)]
            number = self._senses[pos][lemma].index(offset) + 1
            names = {letter: name for name, letter in LETTERS.items()}
            above = tuple((names[p], int(o)) for symbol, o, p in pointers if symbol in ("@", "@i"))
        except (ValueError, IndexError, KeyError) as error:
            raise MirasolError(
                f"{self.folder / f'data.{pos}'}: no synset at byte {offset} ({error}): its files are not of one "
                "WordNet, install it again"
            ) from error
        return _Entry(f"{lemma}.{cells[2]}.{number:02d}", above)
