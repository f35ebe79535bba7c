"""`mirasol explain`: the picture of a file and of a clip of the shards, and refused input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from support.media import tone, write_media

from mirasol.core.errors import MirasolError
from mirasol.data.loading.dataset import ShardDataset
from mirasol.evaluation.attribution.attribute import Attribution, attribute
from mirasol.evaluation.attribution.draw import size_of
from mirasol.evaluation.attribution.explain_file import explain
from mirasol.evaluation.evaluate import Evaluator
from mirasol.media.clip import ClipSpec
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tokenizer import Tokenizer
from mirasol.training.config import TrainingConfig
from mirasol.training.weights import load_model

QUESTION = "Which sound came first?"


CLIP = ClipSpec()


def run(made_project: Path, clip: str, out: Path, question: str = QUESTION, spec: ClipSpec = CLIP) -> Attribution:
    build = made_project / "build"
    training = TrainingConfig(accelerator="cpu")
    words = build / "tokenizer/tokenizer.json"
    evaluator = Evaluator(build / "finetune", build / "shards", words, EvaluateSpec(max_answer=3), training)
    return explain(evaluator, clip, question, spec, out)


def png_size(file: bytes) -> tuple[int, int]:
    """Width and height in the header of a PNG file."""
    assert file[:8] == b"\x89PNG\r\n\x1a\n" and file[12:16] == b"IHDR" and file[-8:-4] == b"IEND"
    return int.from_bytes(file[16:20], "big"), int.from_bytes(file[20:24], "big")


def test_a_file_and_its_clip_in_the_shards_look_the_same(made_project: Path, tmp_path: Path) -> None:
    shards = ShardDataset(made_project / "build/shards", "test")
    file = made_project / "data" / shards.meta(0)["media"]
    from_file = run(made_project, str(file), tmp_path / "file.png")
    from_shards = run(made_project, shards.keys[0], tmp_path / "shards.png")
    assert from_file.answer == from_shards.answer
    np.testing.assert_allclose(from_file.chunks, from_shards.chunks, atol=0.02)  # shards are encoded again
    assert from_file.chunks.sum(1) == pytest.approx(1)


def test_the_picture_is_a_png_with_a_row_for_each_token(made_project: Path, tmp_path: Path) -> None:
    key = ShardDataset(made_project / "build/shards", "test").keys[0]
    explained = run(made_project, key, tmp_path / "looked.png")
    assert png_size((tmp_path / "looked.png").read_bytes()) == size_of(len(explained.pieces))


def test_the_picture_names_the_shares_that_the_command_prints(
    made_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    monkeypatch.setattr(Axes, "set_title", lambda _, text, **__: titles.append(text))
    explained = run(made_project, ShardDataset(made_project / "build/shards", "test").keys[0], tmp_path / "looked.png")
    for token in range(len(explained.pieces)):
        seen, heard = explained.shares(token)
        assert titles[3 * token + 1].startswith(f"picture: {seen} of what counted;")
        assert titles[3 * token + 2].startswith(f"sound: {heard};")


def test_the_page_holds_the_picture_and_escapes_the_question(made_project: Path, tmp_path: Path) -> None:
    key = ShardDataset(made_project / "build/shards", "test").keys[0]
    run(made_project, key, tmp_path / "looked.html", question="is a < b & c?")
    page = (tmp_path / "looked.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page and "is a &lt; b &amp; c?" in page
    assert "http" not in page


def test_a_clip_without_sound_that_ends_early_has_no_share_there(made_project: Path, tmp_path: Path) -> None:
    file = write_media(tmp_path / "short.mp4", frames=8, size=(48, 48))  # 1 s of the model's 2
    explained = run(made_project, str(file), tmp_path / "looked.png")
    assert not explained.chunks[:, 2:].any()
    assert not explained.features[:, 2:].any()
    assert not explained.features[:, :, explained.video_tokens :].any()


def test_a_file_of_sound_alone_can_be_asked_about(made_project: Path, tmp_path: Path) -> None:
    file = write_media(tmp_path / "tone.flac", sound=tone(2.0, 16000), rate=16000)
    explained = run(made_project, str(file), tmp_path / "looked.png")
    assert not explained.picture.any()


def test_shares_are_painted_where_their_features_are(made_project: Path) -> None:
    model = load_model(made_project / "build/finetune").eval()
    found = Attribution("", "", [], np.zeros((0, 4)), np.zeros((0, 4, model.video_tubes.tokens + 4)), model.config)
    assert found.video_tokens == model.video_tubes.tokens
    shares = np.zeros(model.video_tubes.tokens + 4)
    shares[8] = 1.0  # the second tube of the second row of 6
    heat = found.over_frames(shares)
    assert heat.sum() == pytest.approx(1)
    assert (heat[:, 8:16, 16:24] > 0).all()
    assert not found.over_sound(shares).any()
    sound = found.over_sound(np.append(np.zeros(found.video_tokens), [0.0, 1.0, 0.0, 0.0]))
    assert sound[4:8].sum() == pytest.approx(1)


def test_an_empty_answer_looks_too(made_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(made_project / "build/finetune").eval()
    monkeypatch.setattr(model, "generate", lambda h, present, prompts, *_: prompts[:, :, :1] * 0 + 3)
    words = Tokenizer.load(made_project / "build/tokenizer/tokenizer.json")
    shards = ShardDataset(made_project / "build/shards", "test")
    explained = attribute(model, words, shards.arrays(0), ClipSpec(), QUESTION, 3)
    assert (explained.answer, explained.pieces) == ("", ["</s>"])


@pytest.mark.parametrize(
    ("clip", "out", "changes", "said"),
    [
        ("nowhere.mp4", "a.png", {}, "no such file, and no clip of that key"),
        ("KEY", "a.jpg", {}, "expected a name that ends in .png or .html"),
        ("KEY", "a.png", {"question": " "}, "the question is empty"),
        ("KEY", "a.png", {"question": "why? " * 60}, "the text cache holds 48"),
        ("KEY", "a.png", {"spec": ClipSpec(size=64)}, "does not fit the model"),
        ("TEXT", "a.png", {}, "text.mp4"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    made_project: Path, tmp_path: Path, clip: str, out: str, changes: dict[str, Any], said: str
) -> None:
    (tmp_path / "text.mp4").write_text("no media")
    shards = ShardDataset(made_project / "build/shards", "test")
    file = str(made_project / "data" / shards.meta(0)["media"])
    names = {"KEY": file, "TEXT": str(tmp_path / "text.mp4")}
    with pytest.raises(MirasolError, match=said):
        run(made_project, names.get(clip, clip), tmp_path / out, **changes)
    assert not (tmp_path / out).exists()
