"""A WordNet of a few synsets, in the format of the classic database files, written by hand."""

from __future__ import annotations

from pathlib import Path

LETTER = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
# Words of each synset, and the synsets above it. Depths of nouns: entity 0, animal 1, dog and cat 2, puppy 3, rock 1.
NOUNS: list[tuple[str, list[str]]] = [
    ("entity", []),
    ("animal", ["entity"]),
    ("dog", ["animal"]),
    ("cat", ["animal"]),
    ("puppy", ["dog"]),
    ("rock", ["entity"]),
    ("man", ["animal"]),
]
VERBS: list[tuple[str, list[str]]] = [("move", []), ("run", ["move"]), ("play", []), ("walk", ["move"])]


def write_wordnet(folder: Path) -> Path:
    """``index.*``, ``data.*`` and ``*.exc``; the byte offset of each synset is the one that the index names."""
    folder.mkdir(parents=True, exist_ok=True)
    for pos, synsets in (("noun", NOUNS), ("verb", VERBS), ("adj", [("big", [])]), ("adv", [("well", [])])):
        _write(folder, pos, synsets)
    for pos, text in (("noun", "men man\n"), ("verb", "ran run\n"), ("adj", ""), ("adv", "")):
        (folder / f"{pos}.exc").write_text(text)
    return folder


def _write(folder: Path, pos: str, synsets: list[tuple[str, list[str]]]) -> None:
    letter, header = LETTER[pos], "  1 A licence stands here.  \n"
    widths, offset = {}, len(header)
    for word, above in synsets:  # every number has eight digits, so the length of a line is known beforehand
        widths[word] = offset
        offset += len(_line(letter, 0, word, [0] * len(above)))
    lines = [_line(letter, widths[word], word, [widths[name] for name in above]) for word, above in synsets]
    (folder / f"data.{pos}").write_text(header + "".join(lines))
    index = [f"{word} {letter} 1 1 @ 1 0 {widths[word]:08d}  \n" for word, _ in sorted(synsets)]
    (folder / f"index.{pos}").write_text(header + "".join(index))


def _line(letter: str, offset: int, word: str, above: list[int]) -> str:
    pointers = "".join(f"@ {other:08d} {letter} 0000 " for other in above)
    return f"{offset:08d} 03 {letter} 01 {word} 0 {len(above):03d} {pointers}| a gloss  \n"
