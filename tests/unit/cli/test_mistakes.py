"""Typical mistakes on the command line: one error that names the fault and the remedy, and nothing is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.media import write_media

from mirasol.cli.main import main

ROOT = Path(__file__).parents[3]
IMPORT = ("data", "import", "generic", "--annotations", "videos/annotations.csv", "--media", "videos")


@dataclass(frozen=True)
class Mistake:
    """Arguments after `mirasol`, what the one error says, and the state of the project that makes them wrong."""

    arguments: tuple[str, ...]
    says: tuple[str, ...]
    before: Callable[[], object] = lambda: None


def rows(*lines: str) -> Callable[[], object]:
    """An annotation file with a video of two seconds next to it."""
    text = "\n".join(lines) + "\n"
    return lambda: (Path("videos/annotations.csv").write_text(text), write_media(Path("videos/a.mp4"), frames=16))


def edited(old: str, new: str, name: str = "params.yaml") -> Callable[[], object]:
    """A params file with one edit."""
    text = (ROOT / "params.yaml").read_text()
    assert old in text
    return lambda: Path(name).write_text(text.replace(old, new, 1))


TYPO = edited("  lr:", "  learning_rat:", "typo.yaml")
MISTAKES = {
    "a command that is misspelt": Mistake(("answr", "a.mp4", "what?"), ("answr", "answer")),
    "an option that is misspelt": Mistake(("world", "--clip", "3"), ("--clip", "--clips")),
    "an argument that is missing": Mistake(("answer",), ("Missing argument 'file'", "answer -h")),
    "an answer before training": Mistake(("answer", "a.mp4", "what?"), ("build/bundle", "make demo", "--bundle")),
    "a bundle that is elsewhere": Mistake(
        ("answer", "a.mp4", "what?", "--bundle", "videos"), ("videos is not a bundle", "make demo", "--bundle")
    ),
    "a time that is none": Mistake(
        ("stream", "a.mp4", "--ask", "what?", "--every", "soon"), ("--every", "'soon'", "expected one like 2s")
    ),
    "a params file that is missing": Mistake(("params", "check", "mine.yaml"), ("mine.yaml", "or name the file")),
    "a key that is misspelt": Mistake(
        ("params", "check", "typo.yaml"), ("typo.yaml:", "learning_rat", "unknown key"), TYPO
    ),
    "a file that is no YAML": Mistake(
        ("params", "check", "broken.yaml"),
        ("broken.yaml:", "not valid YAML"),
        lambda: Path("broken.yaml").write_text("a: [1\n"),
    ),
    "a stage that is misspelt": Mistake(("stage", "finetun"), ("`finetun`", "did you mean `finetune`?")),
    "a wrong value before a stage": Mistake(
        ("stage", "finetune"), ("params.yaml:", ".lr", "oops"), edited("  lr: ", "  lr: oops # ")
    ),
    "a run outside a project": Mistake(
        ("run",), ("flows/ is not here", "run in the project's folder"), lambda: Path("params.yaml").unlink()
    ),
    "a workspace's name that is a path": Mistake(("workspace", "my/videos"), ("`my/videos`", "use letters, digits")),
    "a workspace's params that are missing": Mistake(
        ("workspace", "mine", "--params", "mine.yaml"), ("--params mine.yaml", "no such file")
    ),
    "a workspace's params that are invalid": Mistake(
        ("workspace", "mine", "--params", "typo.yaml"), ("typo.yaml:", "learning_rat"), TYPO
    ),
    "a workspace's data that are missing": Mistake(
        ("workspace", "mine", "--data", "vidoes"), ("--data vidoes", "no such file or folder")
    ),
    "a workspace's data without annotations": Mistake(
        ("workspace", "mine", "--data", "videos"), ("videos has neither", "--annotations", "media, start, end")
    ),
    "an adapter that is misspelt": Mistake(
        ("workspace", "mine", "--data", "videos", "--adapter", "vgsound"), ("--adapter vgsound", "expected one of")
    ),
    "annotations without data": Mistake(
        ("workspace", "mine", "--annotations", "videos"), ("--annotations", "go with --data")
    ),
    "a header of another tool": Mistake(
        IMPORT,
        ("annotations.csv:1", "unknown column 'file', did you mean 'media'?", "did you mean 'prompt'?"),
        rows("file,question,answer", "a.mp4,what?,dog"),
    ),
    "a header that is missing": Mistake(
        IMPORT, ("annotations.csv:1", "no column 'media'", "Columns: "), rows("a.mp4,dog")
    ),
    "a video that is missing": Mistake(
        IMPORT, ("annotations.csv:2: b.mp4", "--skip-missing"), rows("media,answers", "b.mp4,dog")
    ),
    "an answer that is missing": Mistake(
        IMPORT, ("annotations.csv:2: answers", "expected a list of at least one text"), rows("media,answers", "a.mp4,")
    ),
    "a text with a comma": Mistake(
        IMPORT, ("annotations.csv:2", "put texts with commas in quotes"), rows("media,answers", "a.mp4,a dog, running")
    ),
    "a split that is none": Mistake(
        IMPORT, ("annotations.csv:2: split", "train, val, test"), rows("media,answers,split", "a.mp4,dog,dev")
    ),
    "a source in two splits": Mistake(
        IMPORT,
        ("annotations.csv:3: group 'g'", "in line 2: choose one"),
        rows("media,answers,group,split", "a.mp4,dog,g,val", "a.mp4,cat,g,test"),
    ),
    "a start that is no time": Mistake(
        IMPORT, ("annotations.csv:2: start", "expected seconds"), rows("media,answers,start", "a.mp4,dog,soon")
    ),
    "an end before the start": Mistake(
        IMPORT, ("annotations.csv:2: end 1 is not after start 1.5",), rows("media,answers,start,end", "a.mp4,dog,1.5,1")
    ),
    "a segment past the end of its video": Mistake(
        IMPORT,
        ("annotations.csv:3: start 65 s is past the end of a.mp4, which lasts 2 s", "correct start"),
        rows("media,answers,start", "a.mp4,dog,0:01", "a.mp4,cat,1:05"),
    ),
    "a spreadsheet": Mistake(
        (*IMPORT[:4], "videos/a.xlsx", *IMPORT[5:]), ("videos/a.xlsx", "a .csv file with a header")
    ),
    "another encoding": Mistake(
        IMPORT,
        ("annotations.csv", "save it as UTF-8"),
        lambda: Path("videos/annotations.csv").write_bytes("media,answers\na.mp4,Tür\n".encode("latin-1")),
    ),
    "annotations that are missing": Mistake(IMPORT, ("videos/annotations.csv", "no such file", "--annotations")),
    "media without annotations": Mistake(
        ("data", "import", "generic", "--media", "videos"), ("--annotations, their file, is missing", "--unlabelled")
    ),
    "more media for a published set": Mistake(
        ("workspace", "v", "--data", "videos", "--adapter", "vggsound", "--unlabelled", "videos"),
        ("--unlabelled videos", "--adapter generic", "--append"),
    ),
    "raw videos to train on": Mistake(("train", "videos"), ("mirasol label", "mirasol workspace NAME --unlabelled")),
    "media that are missing": Mistake((*IMPORT[:-1], "vidoes"), ("--media", "vidoes", "does not exist")),
    "own videos into the built-in world": Mistake(
        (*IMPORT, "--out", "world"),
        ("world holds the built-in world", "choose an empty folder with --out"),
        lambda: (rows("media,answers", "a.mp4,dog")(), Path("world").mkdir(), Path("world/families.json").touch()),
    ),
    "a benchmark that is misspelt": Mistake(
        ("score", "msvd-q", "p.jsonl"), ("msvd-q", "msvd-qa"), lambda: Path("p.jsonl").write_text("")
    ),
    "an import of no weights": Mistake(("weights", "import", "--out", "w"), ("nothing to import", "--vision FILE")),
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with trained weights and a folder of videos."""
    root = tmp_path / "project"
    (root / "build/finetune").mkdir(parents=True)
    (root / "build/finetune/weights.safetensors").write_bytes(b"trained for an hour")
    (root / "videos").mkdir()
    shutil.copy(ROOT / "params.yaml", root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "200")
    return root


def files(root: Path) -> dict[Path, bytes]:
    """Everything in a folder but the records of errors."""
    paths = [path for path in root.rglob("*") if path.is_file()]
    return {p: p.read_bytes() for p in paths if p.name != "error.json" and p.parent.name != "errors"}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mistake: str
) -> None:
    case = MISTAKES[mistake]
    case.before()
    held = files(project)
    monkeypatch.setattr("sys.argv", ["mirasol", *case.arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    out, told = capsys.readouterr()
    assert stop.value.code == 2
    assert out == "", "results alone go to stdout"
    assert "Traceback" not in told
    errors = [line for line in told.splitlines() if line.startswith("error: ") or " Error " in line]
    assert len(errors) == 1, told
    assert [words for words in case.says if words not in told] == [], told
    assert files(project) == held


def test_there_are_thirty_of_them() -> None:
    assert len(MISTAKES) >= 30


def test_semicolons_and_clock_times_are_read(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows("media;answers;start;end", "a.mp4;a dog, running;0,5;0:01.5")()
    monkeypatch.setattr("sys.argv", ["mirasol", *IMPORT])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    text = (project / "data/manifest.jsonl").read_text()
    assert '"answers": ["a dog, running"]' in text and '"start": 0.5' in text and '"end": 1.5' in text
