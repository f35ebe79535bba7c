"""params.yaml: valid files, and all problems reported at once."""

from __future__ import annotations

import dataclasses
import re
from io import StringIO
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mirasol.core.errors import MirasolError
from mirasol.core.fields import param
from mirasol.export.config import ExportSpec
from mirasol.model.config import PRESETS, ModelSpec
from mirasol.model.sizes.accounting import chunk_tokens
from mirasol.model.sizes.presets import build_config
from mirasol.pipeline.params.checks import PHASES, chunk_features
from mirasol.pipeline.params.errors import ParamsError, nearest
from mirasol.pipeline.params.load import check_value, load_params
from mirasol.pipeline.params.schema import OWN, SHARED, Params, keys, sections
from mirasol.training.config import PhaseConfig

ROOT = Path(__file__).parents[4]
GOOD = (ROOT / "params.yaml").read_text(encoding="utf-8")


def write(folder: Path, *changes: tuple[str, str], text: str = GOOD) -> Path:
    """A params file in ``folder``: the project's own with each ``old`` replaced once by ``new``."""
    for old, new in changes:
        assert old in text, f"{old!r} is not in the file: the test must change something"
        text = text.replace(old, new, 1)
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path) -> list[str]:
    """``dotted.path: message`` of every problem of a file."""
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    return [f"{p.path}: {p.message}" for p in caught.value.problems]


def test_the_projects_own_file_is_valid() -> None:
    assert isinstance(load_params(ROOT / "params.yaml"), Params)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("**/*.yaml")), ids=lambda p: p.name)
def test_every_recipe_is_valid(path: Path) -> None:
    load_params(path)


def test_values_are_plain_python(tmp_path: Path) -> None:
    params = load_params(write(tmp_path, ("preset: demo", 'preset: "demo"'), ("seed: 1", "seed: 0x1")))
    kinds = {type(v) for s in dataclasses.astuple(params) for v in s}
    assert kinds <= {str, int, float, bool}


@pytest.mark.parametrize("written", ["1e-3", "1.0e-3", "0.001", ".001"])
def test_every_way_to_write_a_small_number_is_read_as_one(tmp_path: Path, written: str) -> None:
    assert load_params(write(tmp_path, ("  tolerance: 1e-5", f"  tolerance: {written}"))).export.tolerance == 0.001


def test_an_integer_will_do_for_a_number(tmp_path: Path) -> None:
    fps = load_params(write(tmp_path, ("fps: 8.0", "fps: 8"))).clip.fps
    assert (fps, type(fps)) == (8.0, float)


@pytest.mark.parametrize("written", ["true", "8.5", "'8'", "null", "[8]", ".inf"])
def test_an_integer_must_be_one(tmp_path: Path, written: str) -> None:
    (problem,) = problems(write(tmp_path, ("workers: 2", f"workers: {written}")))
    assert "expected an integer from 1 to 1024" in problem


@pytest.mark.parametrize("written", ["true", ".nan", ".inf", "fast", "0", "-1"])
def test_a_number_must_be_one_within_bounds(tmp_path: Path, written: str) -> None:
    (problem,) = problems(write(tmp_path, ("fps: 8.0", f"fps: {written}")))
    assert "clip.fps: got" in problem
    assert "expected a number above 0 and up to 240" in problem


def test_a_whole_number_written_with_an_exponent_says_what_to_write(tmp_path: Path) -> None:
    (problem,) = problems(write(tmp_path, ("clips_per_shard: 500", "clips_per_shard: 5e2")))
    assert problem.endswith("write 500")


def test_all_problems_come_at_once_with_file_and_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        ("  fps: 8.0", "  fsp: 8.0"),
        ("preset: demo", "preset: dmeo"),
        ("  opset: 18\n", ""),
        ("crf: 18", "crf: 99"),
    )
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    got = {p.path: lines[p.line - 1].strip() for p in caught.value.problems}
    assert got == {
        "clip.fsp": "fsp: 8.0",
        "model.preset": "preset: dmeo",
        "export.opset": "export:",
        "shards.crf": "crf: 99",
    }
    text = str(caught.value)
    assert f"{path}:{lines.index('  fsp: 8.0') + 1}: clip.fsp: unknown key: did you mean `fps`?" in text
    assert "model.preset: got 'dmeo' (text), expected one of demo, own, tiny, small, base: did you mean `demo`?" in text
    assert "shards.crf: got 99 (integer), expected an integer from 0 to 51" in text
    assert "4 problems" in text


def test_a_missing_key_names_its_default(tmp_path: Path) -> None:
    assert problems(write(tmp_path, ("  opset: 18\n", ""))) == [
        "export.opset: is missing: add `opset: 18` (the default)"
    ]


def test_a_key_in_the_wrong_section_names_its_owner(tmp_path: Path) -> None:
    (problem,) = problems(write(tmp_path, ("  opset: 18\n", "  opset: 18\n  crf: 18\n")))
    assert problem == "export.crf: unknown key: it belongs to shards"


def test_a_misspelt_section_is_still_checked(tmp_path: Path) -> None:
    assert problems(write(tmp_path, ("\nexport:", "\nexprot:"), ("opset: 18", "opset: 3"))) == [
        "exprot: unknown section: did you mean `export`?",
        "exprot.opset: got 3 (integer), expected an integer from 18 to 20",
    ]


def test_a_missing_section_lists_its_keys(tmp_path: Path) -> None:
    text = GOOD[: GOOD.index("# The ONNX bundle.")] + GOOD[GOOD.index("# Streaming, timed") :]
    listed = ", ".join(keys(ExportSpec))
    assert problems(write(tmp_path, text=text)) == [f"export: section is missing: add it with its keys {listed}"]


def test_an_empty_section_says_so(tmp_path: Path) -> None:
    text = GOOD[: GOOD.index("export:\n")] + "export:\n" + GOOD[GOOD.index("# Streaming, timed") :]
    listed = ", ".join(keys(ExportSpec))
    assert problems(write(tmp_path, text=text)) == [f"export: got nothing, expected a section with the keys {listed}"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("size: 48", "size: 50", "clip.size: got 50 with model.preset = demo, must be a multiple of twice"),
        ("frames_per_chunk: 4", "frames_per_chunk: 3", "clip.frames_per_chunk: got 3 with model.overlap = 0, model"),
        ("overlap: 0", "overlap: 4", "model.overlap: got 4 with clip.frames_per_chunk = 4, must be less"),
        ("mels: 32", "mels: 16", "clip.mels: got 16 with model.preset = demo, must be at least the mel bands"),
        ("max_chunks: 16", "max_chunks: 3", "model.max_chunks: got 3 with clip.chunks = 4, must be at least"),
        (
            "combiner: transformer",
            "combiner: cls",
            "model.queries: got pooled with model.combiner = cls, `pooled` goes",
        ),
        (
            "num_queries: 9",
            "num_queries: 64",
            "model.num_queries: got 64 with model.preset = demo, clip.size = 48, clip.frames",
        ),
        ("max_answer: 8", "max_answer: 48", "evaluate.max_answer: got 48 with tokenizer.max_text = 48"),
        (
            "  caption_weight: 2.0",
            "  caption_weight: 2.0\n  max_text: 8",
            "evaluate.max_answer: got 8 with finetune.max_text = 8, must be less than `finetune.max_text`",
        ),
        ("  caption_weight: 1.0", "  caption_weight: 1.0\n  max_text: 7", "pretrain.max_text: got 7, must be 0 or at"),
        (
            "tasks: caption audio_class",
            "tasks: unlabelled\n  keep: best",
            "pretrain.keep: got best with pretrain.tasks = unlabelled, must be `last` for",
        ),
        (
            "tasks: caption audio_class",
            "tasks: caption unlabelled\n  chunks: 1",
            "pretrain.chunks: got 1 with clip.chunks = 4, pretrain.tasks = caption unlabelled, must be 2 or",
        ),
        (
            "tasks: caption audio_class",
            "tasks: caption unlabelled\n  latent_weight: 0.0\n  video_weight: 0.0\n  audio_weight: 0.0",
            "pretrain.tasks: got caption unlabelled with pretrain.latent_weight = 0.0, pretrain.video_weight",
        ),
        ("warmup: 10", "warmup: 50000", "audio_pretrain.warmup: got 50000 with audio_pretrain.steps"),
        ("mute: 0.05", "mute: 0.96", "phases.mute: got 0.96 with phases.blank = 0.05"),
        (
            "  caption_weight: 1.0",
            "  caption_weight: 1.0\n  mute: 0.96",
            "pretrain.mute: got 0.96 with phases.blank",
        ),
    ],
)
def test_keys_must_fit_together(tmp_path: Path, old: str, new: str, expected: str) -> None:
    (problem,) = problems(write(tmp_path, (old, new)))
    assert problem.startswith(expected)


def test_too_many_combined_features_are_told_with_how_many_there_are(tmp_path: Path) -> None:
    (problem,) = problems(write(tmp_path, ("num_queries: 9", "num_queries: 64")))
    assert problem.endswith("must be at most n, the video and audio features of a chunk, here 40")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("clip", [(48, 4, 0, 4, 32), (96, 16, 0, 5, 64), (128, 16, 3, 4, 80), (448, 17, 0, 8, 128)])
def test_features_of_a_chunk_are_counted_as_the_model_counts_them(preset: str, clip: tuple[int, ...]) -> None:
    size, frames, overlap, bands, mels = clip
    config = build_config(
        ModelSpec(preset=preset, overlap=overlap), size=size, frames_per_chunk=frames, mels=mels,
        audio_columns=bands * frames, vocabulary=9, max_text=9,
    )  # fmt: skip
    try:
        lattices, audio = chunk_tokens(config)
    except ValueError:
        pytest.skip("the preset's tubes do not fit, which another check says")
    assert chunk_features(preset, *clip) == sum(lattice.tokens for lattice in lattices) + audio


def test_checks_across_keys_come_together_with_other_problems(tmp_path: Path) -> None:
    assert len(problems(write(tmp_path, ("max_chunks: 16", "max_chunks: 3"), ("fps: 8.0", "fps: no")))) == 2


def test_a_section_through_an_anchor_is_read(tmp_path: Path) -> None:
    start, end = GOOD.index("finetune:"), GOOD.index("# Scoring")
    text = GOOD[:start] + "finetune:\n  <<: *phase\n  lr: 5e-6\n\n" + GOOD[end:]
    params = load_params(write(tmp_path, ("\npretrain:", "\npretrain: &phase"), text=text))
    assert params.finetune == dataclasses.replace(params.pretrain, lr=5e-6)


def test_a_phase_takes_from_phases_what_it_does_not_state(tmp_path: Path) -> None:
    params = load_params(
        write(tmp_path, ("  mute: 0.05", "  mute: 0.25"), ("caption_weight: 2.0", "caption_weight: 3.0"))
    )
    assert (params.pretrain.mute, params.audio_pretrain.mute, params.finetune.mute) == (0.25, 0.0, 0.25)
    assert (params.pretrain.caption_weight, params.finetune.caption_weight) == (1.0, 3.0)


def test_every_phase_states_what_is_tuned_most(tmp_path: Path) -> None:
    assert problems(write(tmp_path, ("  steps: 60\n", ""), ("  val_clips: 256", "  val_clips: 256\n  lr: 1e-3"))) == [
        "phases.lr: unknown key: it belongs to pretrain, audio_pretrain, finetune",
        "audio_pretrain.steps: is missing: add `steps: 1000` (the default)",
    ]


def test_a_key_that_no_section_states_is_missing_once(tmp_path: Path) -> None:
    assert problems(write(tmp_path, ("  jitter: 0\n", ""))) == [
        "phases.jitter: is missing: add `jitter: 0` (the default) here or to each phase"
    ]


def test_a_wrong_shared_value_is_one_problem(tmp_path: Path) -> None:
    assert problems(write(tmp_path, ("  crop: 1.0\n", "  crop: 2.0\n"))) == [
        "phases.crop: got 2.0 (number), expected a number above 0 and up to 1"
    ]


def older(text: str = GOOD) -> str:
    """The project's file in the form that had no `phases`: each phase states every key."""
    yaml = YAML()
    document = yaml.load(text)
    shared = document.pop(SHARED)
    for phase in PHASES:
        document[phase] = {**shared, **document[phase]}
    out = StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def test_a_renamed_key_keeps_its_value(tmp_path: Path) -> None:
    assert problems(write(tmp_path, ("num_queries: 9", "combined: 8"))) == [
        "model.combined: unknown key: it is called `num_queries` now: write `num_queries: 8`"
    ]


def test_a_file_of_the_older_form_is_told_how_to_move(tmp_path: Path) -> None:
    (problem,) = problems(write(tmp_path, text=older()))
    match = re.fullmatch(
        r"phases: section is missing: state once .* Add `phases` with (.*), and delete these keys from (.*); keep .*",
        problem,
    )
    assert match and match[2] == ", ".join(PHASES)
    moved = YAML().load(match[1].replace(", ", "\n"))
    assert set(moved) <= keys(PhaseConfig).keys() - set(OWN) and {"batch_size", "mix"} <= set(moved)
    document = YAML().load(older())
    document[SHARED] = moved
    for phase in PHASES:
        for key in moved:
            del document[phase][key]
    out = StringIO()
    YAML().dump(document, out)
    assert load_params(write(tmp_path, text=out.getvalue())) == load_params(ROOT / "params.yaml")


def test_a_key_may_hold_integers_by_name() -> None:
    @dataclasses.dataclass(frozen=True)
    class Spec:
        mix: dict[str, int] = param({}, "clips of each data set", ge=1)

    (key,) = keys(Spec).values()
    assert (key.kind, key.default, key.allowed()) == (dict, {}, "names with integers from 1")
    assert check_value({"a": 3, "b": 1}, key) == ({"a": 3, "b": 1}, "")
    assert check_value({}, key) == ({}, "")
    assert check_value([3], key)[1] == "got a list, expected names with integers from 1"
    assert check_value({"a": 0}, key)[1] == "got a: 0 (integer), expected names with integers from 1"
    assert check_value({"a": True}, key)[1] == "got a: true (true or false), expected names with integers from 1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("clip: [1, 2\nmodel: 3\n", "not valid YAML"),
        ("clip:\n  fps: 8\n  fps: 9\n", "3: not valid YAML: found duplicate key"),
        ("clip:\n\tfps: 8\n", "2: not valid YAML"),
        ("", "got nothing, expected sections: clip, tokenizer"),
        ("- clip\n", "got a list, expected sections"),
        ("clip: \x01\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_one_clear_error(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ParamsError) as caught:
        load_params(write(tmp_path, text=text))
    assert expected in str(caught.value)


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match=r"does not exist: run in the project's folder"):
        load_params(tmp_path / "params.yaml")


def test_a_binary_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MirasolError, match="cannot be read as a text file"):
        load_params(tmp_path / "params.yaml")


def test_every_key_of_the_schema_is_documented_and_its_default_allowed() -> None:
    for name, section in sections().items():
        assert section.doc
        for key in section.keys.values():
            assert key.kind in (str, int, float, bool), f"{name}.{key.name}: the loader knows no {key.kind}"
            assert key.doc
            assert type(key.default) is key.kind
            assert key.holds(key.default)


def test_nearest_finds_a_typo_and_no_stranger() -> None:
    assert nearest("leraning_rate", ["lr", "learning_rate"]) == "learning_rate"
    assert nearest("zebra", ["fps", "chunks"]) is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"size": 36}, "phases.size: got 36 with clip.size = 48, must be 0 or a whole part"),
        ({"size": 16}, "phases.size: got 16 with model.preset = demo, must be a multiple of twice"),
        ({"chunks": 5}, "phases.chunks: got 5 with clip.chunks = 4, must be at most `clip.chunks`"),
        (
            {"frames_per_chunk": 3},
            "phases.frames_per_chunk: got 3 with clip.frames_per_chunk = 4, must be 0 or",
        ),
        (
            {"frames_per_chunk": 2},
            "phases.frames_per_chunk: got 2 with model.overlap = 0, model.preset = demo",
        ),
        ({"max_chunks": 3}, "phases.max_chunks: got 3 with phases.chunks = 0, clip.chunks = 4, must be 0 or at least"),
        ({"epochs": 2}, "phases.epochs: got 2 with pretrain.steps ="),
    ],
)
def test_a_phases_view_must_fit_clips_and_model(tmp_path: Path, changes: dict[str, int], problem: str) -> None:
    edits = [(f"\n  {key}: 0\n", f"\n  {key}: {value}\n") for key, value in changes.items()]
    found = problems(write(tmp_path, *edits))
    assert any(line.startswith(problem) for line in found), found


def test_a_phase_has_a_loss(tmp_path: Path) -> None:
    others = dict.fromkeys(("text", "latent", "video", "audio"), 0.0)
    own = "".join(f"\n  {name}_weight: {value}" for name, value in others.items())
    (problem,) = problems(write(tmp_path, ("  caption_weight: 2.0", f"  caption_weight: 2.0{own}")))
    assert problem.startswith("finetune.text_weight: got 0.0 with finetune.latent_weight = 0.0, finetune.video_weight")


def test_the_first_chunks_of_a_spread_clip_are_not_the_clip(tmp_path: Path) -> None:
    found = problems(write(tmp_path, ("sampling: rate", "sampling: spread"), ("  chunks: 0", "  chunks: 2")))
    assert any("must be 0 under `clip.sampling: spread`" in line for line in found)


def test_a_phase_without_steps_has_epochs(tmp_path: Path) -> None:
    steps = f"  steps: {load_params(ROOT / 'params.yaml').finetune.steps}\n"
    load_params(write(tmp_path, (steps, "  steps: 0\n  epochs: 3\n")))
    (problem,) = problems(write(tmp_path, (steps, "  steps: 0\n")))
    assert problem.startswith("phases.epochs: got 0 with finetune.steps = 0, must be above 0")
