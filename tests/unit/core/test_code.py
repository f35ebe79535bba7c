"""One list says which code decides which bytes, and each key follows the files in it and no others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mirasol.core.code import CHECKPOINT, CLIPS, NEUTRAL, PACKAGE, STAGES, code_hash, files_of

LISTED = sorted({entry for entries in (*STAGES.values(), NEUTRAL) for entry in entries})
KEYS = {"clips": CLIPS, "training": CHECKPOINT}
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def decided_by(name: str) -> set[str]:
    """The keys that must follow the file ``name``."""
    return {key for key, entries in KEYS.items() if PACKAGE / name in set(files_of(entries))}


DECIDING = [name for name in FILES if decided_by(name)]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source with one statement more in each file that decides no key."""
    copy = tmp_path_factory.mktemp("source") / "mirasol"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name in set(FILES) - set(DECIDING):
        with (copy / name).open("a", encoding="utf-8") as file:
            file.write("\nEDITED = 1\n")
    return copy


@pytest.mark.parametrize("entry", LISTED)
def test_every_entry_exists(entry: str) -> None:
    assert (PACKAGE / entry).exists()


@pytest.mark.parametrize("key", KEYS)
def test_edits_of_all_other_files_change_no_key(package: Path, key: str) -> None:
    assert code_hash(KEYS[key], package) == code_hash(KEYS[key])


@pytest.mark.parametrize("name", DECIDING)
def test_an_edit_of_deciding_code_changes_its_hash(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text((PACKAGE / name).read_text(encoding="utf-8") + "\nEDITED = 1\n", encoding="utf-8")
    assert code_hash((name,), tmp_path) != code_hash((name,))


def test_the_decoder_decides_clips_and_training() -> None:
    assert decided_by("media/decode.py") == {"clips", "training"}


@pytest.mark.parametrize("folder", ("tasks", "data/world", "data/contact_sheet.py"))
def test_neither_tasks_nor_the_world_nor_the_contact_sheet_decide_a_key(folder: str) -> None:
    assert {name for name in FILES if name.startswith(folder) and decided_by(name)} == set()


def test_comments_docstrings_and_layout_do_not_count(tmp_path: Path) -> None:
    texts = ("def f():\n    return 1\n", '"""Doc."""\n# why\ndef f():\n    """Doc."""\n    return  1\n')
    hashes = set()
    for text in texts:
        (tmp_path / "a.py").write_text(text, encoding="utf-8")
        hashes.add(code_hash(("a.py",), tmp_path))
    assert len(hashes) == 1


def test_code_counts(tmp_path: Path) -> None:
    hashes = set()
    for text in ("x = 1\n", "x = 2\n"):
        (tmp_path / "a.py").write_text(text, encoding="utf-8")
        hashes.add(code_hash(("a.py",), tmp_path))
    assert len(hashes) == 2
