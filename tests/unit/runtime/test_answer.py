"""A question about a file: answered without torch, or refused with one clear error."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.bundle import QUESTION, tiny_bundle
from support.media import tone, write_media

from mirasol.core.errors import MirasolError
from mirasol.runtime.answer import answer
from mirasol.runtime.contract import CONTRACT_VERSION

# Forbids what only training has, then runs the command line as a user would.
RUNNER = """
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchaudio", "onnx", "onnxscript", "sentencepiece", "pytorch_lightning"}:
            raise ImportError(f"{name} must not be imported")
sys.meta_path.insert(0, Forbid())
from mirasol.cli.main import main
sys.argv = ["mirasol", *sys.argv[1:]]
try:
    main()
finally:
    assert not [name for name in sys.modules if name.split(".")[0] == "torch"]
"""


@pytest.fixture
def media(tmp_path: Path) -> Path:
    return write_media(tmp_path / "clip.mkv", frames=16, size=(48, 32), sound=tone(2.0))


def mirasol(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, without torch."""
    command = [sys.executable, "-c", RUNNER, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ | {"COLUMNS": "200"})


def test_answer_runs_without_torch(media: Path) -> None:
    done = mirasol("answer", media, QUESTION, "--bundle", tiny_bundle(), folder=media.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == answer(media, QUESTION, tiny_bundle())


def test_stream_runs_without_torch(media: Path) -> None:
    command = ("stream", media, "--ask", QUESTION, "--fast", "--every", 1, "--bundle", tiny_bundle())
    done = mirasol(*command, folder=media.parent)
    assert done.returncode == 0, done.stderr
    assert "2.0 s in 4 chunks" in done.stdout


@pytest.mark.parametrize("command", ["answer", "stream"])
def test_a_folder_s_bad_file_is_told_on_stderr_alone(command: str, media: Path) -> None:
    (media.parent / "notes.mp4").write_text("no media")
    asked = {"answer": (QUESTION,), "stream": ("--ask", QUESTION, "--fast")}[command]
    done = mirasol(command, media.parent, *asked, "--bundle", tiny_bundle(), folder=media.parent)
    assert done.returncode == 0, done.stderr
    assert "notes.mp4: skipped: cannot be opened" in done.stderr
    assert "1 of 2 files were skipped: notes.mp4" in done.stderr
    assert "skipped" not in done.stdout


def test_a_file_without_sound_and_one_without_a_picture(tmp_path: Path) -> None:
    silent = write_media(tmp_path / "silent.mkv", frames=16)
    dark = write_media(tmp_path / "dark.flac", sound=tone(2.0))
    assert isinstance(answer(silent, QUESTION, tiny_bundle()), str)
    assert isinstance(answer(dark, QUESTION, tiny_bundle()), str)


def flipped(folder: Path) -> Path:
    """A bundle with one byte changed."""
    bundle = Path(shutil.copytree(tiny_bundle(), folder / "flipped"))
    data = bytearray((bundle / "latent_step.onnx").read_bytes())
    data[1000] ^= 1
    (bundle / "latent_step.onnx").write_bytes(data)
    return bundle


def other_version(folder: Path) -> Path:
    """A bundle of a mirasol to come."""
    bundle = Path(shutil.copytree(tiny_bundle(), folder / "other"))
    contract = bundle / "contract.json"
    contract.write_text(contract.read_text().replace(f'"version": {CONTRACT_VERSION}', '"version": 99'))
    return bundle


CASES = {
    "not a video": (lambda d: {"file": other_file(d)}, r"notes\.txt: cannot be opened as video or audio"),
    "missing file": (lambda d: {"file": d / "nowhere.mp4"}, r"nowhere\.mp4: no such file"),
    "missing bundle": (lambda d: {"bundle": d / "nowhere"}, "nowhere is no bundle: no such folder"),
    "flipped byte": (lambda d: {"bundle": flipped(d)}, r"latent_step\.onnx is not the file that was exported"),
    "other version": (lambda d: {"bundle": other_version(d)}, "contract version 99, but this mirasol reads version 2"),
    "long question": (lambda _: {"question": "red " * 30}, "32 tokens, but the text cache holds 12"),
    "no question": (lambda _: {"question": " "}, "the question is empty"),
}


def other_file(folder: Path) -> Path:
    """A text file."""
    (folder / "notes.txt").write_text("no video")
    return folder / "notes.txt"


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_clear_error(case: str, media: Path, tmp_path: Path) -> None:
    change, message = CASES[case]
    arguments = {"file": media, "question": QUESTION, "bundle": tiny_bundle()} | change(tmp_path)
    with pytest.raises(MirasolError, match=message):
        answer(**arguments)


@pytest.mark.parametrize("command", ["answer", "stream", "serve"])
def test_a_provider_that_does_not_exist_is_one_clear_error(command: str, media: Path) -> None:
    asked = {"answer": (media, QUESTION), "stream": (media, "--ask", QUESTION), "serve": ("--port", "0")}[command]
    done = mirasol(command, *asked, "--bundle", tiny_bundle(), "--provider", "coreml", folder=media.parent)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the provider 'coreml' does not exist: one of auto, cpu, cuda, tensorrt, tens")


def test_bad_input_exits_with_status_2_and_no_traceback(media: Path) -> None:
    done = mirasol("answer", media.parent / "nowhere.mp4", QUESTION, "--bundle", tiny_bundle(), folder=media.parent)
    assert done.returncode == 2
    assert "nowhere.mp4: no such file" in done.stderr
    assert "Traceback" not in done.stderr
