"""The front door answers without torch, or refuses with one clear error."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.bundle import CLIP, QUESTION, random_chunk, tiny_bundle
from support.media import tone, write_media

import mirasol as mirasol_package
from mirasol.core.errors import MirasolError
from mirasol.runtime.contract import CONTRACT_VERSION
from mirasol.runtime.model import _partial, load
from mirasol.runtime.sources.files import FileSource

# Forbids what only training has, then runs the command line as a user would.
FORBID = """
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchaudio", "onnx", "onnxscript", "sentencepiece", "pytorch_lightning"}:
            raise ImportError(f"{name} must not be imported")
sys.meta_path.insert(0, Forbid())
"""
RUNNER = f"""{FORBID}
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


def python(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """An interpreter of its own in ``folder``."""
    return subprocess.run([sys.executable, *arguments, "-c", code], capture_output=True, text=True, cwd=folder)


def examples() -> list[str]:
    """Python code with which the package's docstring and README show how to load a bundle."""
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    docstring = "\n".join(re.findall(r"^    (.*)$", inspect.cleandoc(mirasol_package.__doc__ or ""), re.MULTILINE))
    return [docstring, *(block for block in blocks if "mirasol.load(" in block)]


@pytest.mark.parametrize("code", examples())
def test_the_example_runs_without_torch(code: str, tmp_path: Path) -> None:
    write_media(tmp_path / "clip.mkv", frames=16, size=(48, 32), sound=tone(2.0)).rename(tmp_path / "clip.mp4")
    (tmp_path / "build").mkdir()
    (tmp_path / "build/bundle").symlink_to(tiny_bundle())
    asked = re.sub(r"[\"'][^\"']*\?[\"']", repr(QUESTION), code)  # the tiny model knows ten words
    done = python(FORBID + asked, tmp_path)
    assert done.returncode == 0, done.stderr
    expected = load(tiny_bundle()).answer(tmp_path / "clip.mp4", QUESTION)
    assert done.stdout.splitlines()[0] == str(expected)


def test_a_stream_answers_while_it_runs_and_lets_go_when_it_is_left(media: Path) -> None:
    model = load(tiny_bundle(), threads=1)
    found = list(model.stream(media, QUESTION, every=1.0, wait=False))
    assert [answer.seconds for answer in found] == [1.0, 2.0]
    assert found[-1] == model.answer(media, QUESTION)
    answers = model.stream(media, QUESTION, every=0.5, wait=False)
    assert next(answers).seconds == 0.5
    answers.close()


@pytest.mark.parametrize("every", [0.0, -1.0, float("nan")])
def test_a_stream_refuses_a_time_that_is_not_above_0(every: float, media: Path) -> None:
    with pytest.raises(MirasolError, match=r"every .* expected a time above 0"):
        load(tiny_bundle()).stream(media / "a.mp4", QUESTION, every=every)


def test_a_session_takes_chunks_and_questions() -> None:
    session = load(tiny_bundle(), threads=1).session()
    session.push(*random_chunk(0))
    answer = session.ask(QUESTION)
    assert (answer.text, answer.seconds, answer.complete) == (str(answer), CLIP.chunk_seconds, False)


def test_the_package_has_the_names_that_it_lists_and_no_others() -> None:
    assert all(hasattr(mirasol_package, name) for name in mirasol_package.__all__)
    with pytest.raises(AttributeError, match="module 'mirasol' has no attribute 'lode'"):
        mirasol_package.lode  # noqa: B018


def test_the_package_runs_as_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mirasol", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("mirasol ")


@pytest.mark.parametrize("module", ["mirasol.runtime.model", "mirasol.runtime.session", "mirasol.serve.app"])
def test_the_runtime_imports_no_code_of_the_data(module: str, tmp_path: Path) -> None:
    done = python(f"import {module}, sys; print(*(m for m in sys.modules if m.startswith('mirasol.data')))", tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_answer_runs_without_torch(media: Path) -> None:
    done = mirasol("answer", media, QUESTION, "--bundle", tiny_bundle(), folder=media.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(load(tiny_bundle()).answer(media, QUESTION))


def test_stream_runs_without_torch(media: Path) -> None:
    command = ("stream", media, "--ask", QUESTION, "--fast", "--every", 1, "--bundle", tiny_bundle())
    done = mirasol(*command, folder=media.parent)
    assert done.returncode == 0, done.stderr
    assert "2.0 s in 4 chunks" in done.stdout


@pytest.mark.parametrize("command", ["answer", "stream"])
def test_a_folder_s_bad_file_is_told_on_stderr_alone(command: str, media: Path) -> None:
    (media.parent / "notes.mp4").write_text("no media")
    asked = {"answer": (QUESTION, "--join"), "stream": ("--ask", QUESTION, "--fast")}[command]
    done = mirasol(command, media.parent, *asked, "--bundle", tiny_bundle(), folder=media.parent)
    assert done.returncode == 0, done.stderr
    assert "notes.mp4: skipped: cannot be opened" in done.stderr
    assert "1 of 2 files were skipped: notes.mp4" in done.stderr
    assert "skipped" not in done.stdout


def test_a_file_without_sound_and_one_without_a_picture(tmp_path: Path) -> None:
    silent = write_media(tmp_path / "silent.mkv", frames=16)
    dark = write_media(tmp_path / "dark.flac", sound=tone(2.0))
    model = load(tiny_bundle())
    for file in (silent, dark):
        assert isinstance(model.answer(file, QUESTION).text, str)


def test_answer_says_on_stderr_that_the_sound_is_missing(tmp_path: Path) -> None:
    silent = write_media(tmp_path / "silent.mkv", frames=16)
    done = mirasol("answer", silent, QUESTION, "--bundle", tiny_bundle(), folder=tmp_path)
    assert done.stderr.splitlines()[0] == "no sound: the answer rests on the picture alone"
    assert "sound:" not in done.stdout


@pytest.mark.parametrize(
    ("stated", "wrong", "text"),
    [
        (4.0, "", "only 2 of 4 s were used: the rest holds nothing"),
        (4.0, "video: bad", "only 2 of 4 s were used: video: bad"),
    ],
)
def test_a_file_of_which_a_part_could_not_be_used_is_marked(media: Path, stated: float, wrong: str, text: str) -> None:
    source = FileSource(media, CLIP)
    assert _partial(source, source.stated) == ()
    source.stated, source.wrong = stated, wrong
    (flag,) = _partial(source, 2.0)
    assert flag.name == "partial" and flag.text.startswith(text)


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
    "missing bundle": (lambda d: {"bundle": d / "nowhere"}, "nowhere is not a bundle: no such folder"),
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
        load(arguments["bundle"]).answer(arguments["file"], arguments["question"])


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
