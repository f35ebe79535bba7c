"""The command line: its commands and options, its failures, its output."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from mirasol.cli.bench import BENCHMARKS
from mirasol.cli.main import app, model
from mirasol.cli.memory import MemoryOptions, memory
from mirasol.cli.preset import PRESET_HELP
from mirasol.core.errors import MirasolError
from mirasol.pipeline.params.docs import json_schema, render
from mirasol.pipeline.params.load import load_params
from mirasol.tasks.registry import PROTOCOLS

ROOT = Path(__file__).parents[3]
SETS = ("activitynet-qa", "audiocaps", "audioset", "epic-sounds", "kinetics-sounds", "msrvtt-qa", "msvd-qa")
SETS += ("nextqa-mc", "nextqa-oe", "vggsound", "webvid")
SET_OPTIONS = {"annotations", "media", "out", "split", "pattern", "link"}
SET_OPTIONS |= {"skip_missing", "dry_run", "append", "as_json"}
# A change here is a change for users: it needs a line in CHANGELOG.md.
COMMANDS = {
    "ablate": set(),
    "answer": {"file", "question", "join", "bundle", "threads", "provider", "as_json"},
    **{f"bench {name}": {"json", "rounds", "quick"} for name in BENCHMARKS},
    "bundle slim": {"source", "out", "as_json"},
    "cluster check": {"wait", "as_json"},
    "completion": {"shell"},
    "data check": {"shards", "data", "as_json"},
    "data import drone": {"media", "out", "as_json"},
    "data import fsdd": {"media", "out", "as_json"},
    "data import generic": {"annotations", "media", "unlabelled", "out", "link", "skip_missing", "append", "as_json"},
    "data import webdataset": {"tars", "out", "split", "caption_key", "append", "name", "as_json"},
    **{f"data import {name}": SET_OPTIONS for name in SETS},
    "data look": {"out", "split", "shard", "clips", "key", "phase", "start_sample", "shards", "as_json"},
    "data probe": {"data", "annotations", "out", "as_json"},
    "doctor": {"as_json"},
    "compare": {"files", "runs", "out", "as_json"},
    "evaluate": {"benchmark", "split", "weights", "data", "out", "wordnet", "as_json"},
    "explain": {"clip", "question", "weights", "out", "as_json"},
    "label": {"folder", "ask", "answers", "bundle", "out", "group_by", "port"},
    "model memory": {
        *("preset", "file", "frames", "size", "combiner", "gpus", "nodes", "batch", "memory", "texts", "optimizer"),
        *("sharding", "recompute", "micro_batch", "mfu", "tflops", "json"),
    },
    "model show": {"preset", "file", "frames", "size", "combiner", "as_json"},
    "params check": {"file", "as_json", "paper"},
    "params docs": {"out", "as_json"},
    "params schema": set(),
    "predict": {"source", "out", "ask", "join", "bundle", "workers", "provider", "as_json"},
    "releases current": {"folder", "as_json"},
    "releases list": {"folder", "as_json"},
    "releases promote": {"name", "folder", "as_json"},
    "releases rollback": {"folder", "as_json"},
    "report": {"out", "markdown", "as_json"},
    "run": set(),
    "score": {"benchmark", "predictions", "annotations", "data", "split", "out", "missing_wrong", "wordnet", "as_json"},
    "serve": {"bundle", "host", "port", "sessions", "max_upload", "samples", "idle", "threads", "provider"},
    "stage": {"name", "resume_anyway", "start_anew"},
    "stream": {"source", "ask", "every", "fast", "bundle", "threads", "provider", "as_json"},
    "try": {"bundle", "page"},
    "weights import": {"out", "vision", "text", "earlier", "pixels", "pieces", "params", "as_json"},
    "train": {"data", "name", "params", "start", "unlabelled", "adapter", "annotations", "options"},
    "workspace": {"name", "params", "data", "adapter", "annotations", "options", "start", "unlabelled", "as_json"},
    "world": {"out", "clips", "seed", "workers", "hard", "force", "as_json"},
}
# Commands that pass all arguments to a module of the project's folder, with its options.
PASSED_ON = {
    "ablate": {"--seeds", "--jobs", "--list", "--dry-run"},
    "run": {"--push", "--workspace", "--no-report", "--retries", "--retry-delay", "--lock-wait", "--json"},
}


@pytest.mark.parametrize("command", ["evaluate", "score"])
def test_help_names_every_benchmark(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        app([command, "--help"], standalone_mode=False)
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert [name for name in PROTOCOLS if name not in words] == []


def leaves(command: Any, path: str = "") -> dict[str, Any]:
    """Every command that does something, by its words."""
    children = getattr(command, "commands", None)
    if children is None:
        return {path: command}
    return {
        words: leaf
        for name, child in children.items()
        for words, leaf in leaves(child, f"{path} {name}".strip()).items()
    }


LEAVES = leaves(typer.main.get_command(app))


def mirasol(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    program = [sys.executable, "-c", "from mirasol.cli.main import main; main()", *arguments]
    return subprocess.run(program, cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | environment)


def test_commands_and_options_are_those_that_are_documented() -> None:
    assert {words: {p.name for p in leaf.params} - {"help"} for words, leaf in LEAVES.items()} == COMMANDS


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_says_what_it_does_and_what_its_options_mean(words: str) -> None:
    leaf = LEAVES[words]
    assert leaf.help
    assert all(getattr(p, "help", None) for p in leaf.params), "each option has a help text"


@pytest.mark.parametrize("words", COMMANDS)
def test_help_has_one_form(words: str) -> None:
    """A purpose in one sentence, details, examples."""
    purpose, *others = [" ".join(part.split()) for part in inspect.cleandoc(LEAVES[words].help or "").split("\n\n")]
    assert purpose[0].isupper() and purpose.endswith(".") and ". " not in purpose
    examples = [part.startswith("Example: ") for part in others]
    assert any(examples) and examples == sorted(examples), "examples come last"
    assert all(part.startswith(f"Example: mirasol {words}") for part in others if part.startswith("Example: "))


@pytest.mark.parametrize("words", PASSED_ON)
def test_help_of_a_command_that_passes_its_arguments_on_shows_all_options(words: str) -> None:
    done = mirasol(words, "--help")
    assert done.returncode == 0, done.stderr
    assert PASSED_ON[words] <= set(done.stdout.split())
    assert f"Usage: mirasol {words}" in done.stdout and f"Example:  mirasol {words}" in done.stdout


def test_help_lists_the_commands() -> None:
    done = mirasol("--help")
    assert done.returncode == 0
    assert {words.split()[0] for words in COMMANDS} <= set(done.stdout.replace("│", " ").split())


@pytest.mark.parametrize(
    ("name", "own"), [("stream", {"--bundle", "--file", "--chunks"}), ("export", {"--all-clips", "--steps"})]
)
def test_help_of_a_benchmark_shows_its_own_options_too(name: str, own: set[str]) -> None:
    done = mirasol("bench", name, "--help")
    assert done.returncode == 0
    assert {"--json", "--rounds", "--quick", *own} <= set(done.stdout.split())
    assert f"Example:  mirasol bench {name}" in done.stdout


def test_an_error_that_the_user_can_mend_is_one_text_and_status_2(tmp_path: Path) -> None:
    done = mirasol("params", "check", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: params.yaml does not exist: run in the project's folder")
    assert "Traceback" not in done.stderr


def test_a_misspelt_option_is_status_2_with_a_hint() -> None:
    done = mirasol("world", "--clip", "3")
    assert done.returncode == 2
    assert "--clips" in done.stderr


def test_a_bug_shows_its_traceback_and_is_status_1(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "broken.py").write_text(
        "import mirasol.pipeline.run_stage as run\n"
        "def fail(*a): raise ZeroDivisionError('bug')\n"
        "run.load_params = fail\n"
    )
    program = (
        "import broken, sys\nfrom mirasol.cli.main import main\nsys.argv = ['mirasol', 'stage', 'shards']\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError: bug" in done.stderr


def test_a_missing_package_names_the_extra_that_brings_it(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    program = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['mirasol', 'model', 'show']\n"
        "from mirasol.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    hint = "run `pip install 'mirasol-av[train]'`, or `make setup` in the project's folder"
    assert done.stderr == f"error: this needs the package torch: {hint}\n"


def test_version() -> None:
    from mirasol import __version__

    assert mirasol("--version").stdout == f"mirasol {__version__}\n"


def test_params_check_shows_the_resolved_file() -> None:
    done = mirasol("params", "check", "recipes/drone.yaml")
    assert done.returncode == 0, done.stderr
    resolved = dataclasses.asdict(load_params(ROOT / "recipes/drone.yaml"))
    assert YAML(typ="safe").load(done.stdout) == resolved
    assert done.stderr == "recipes/drone.yaml: 175 values in 11 sections, all valid\n"
    assert json.loads(mirasol("params", "check", "recipes/drone.yaml", "--json").stdout) == resolved


def test_params_schema_prints_the_json_schema() -> None:
    assert json.loads(mirasol("params", "schema").stdout) == json_schema()


def test_a_workspace_with_wrong_parameters_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("clip: {fsp: 1}\n")
    done = mirasol("workspace", "mine", "--params", "bad.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "clip.fsp: unknown key: did you mean `fps`?" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_params_docs_writes_the_page(tmp_path: Path) -> None:
    assert mirasol("params", "docs", "--out", str(tmp_path / "page.md")).returncode == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == render()
    assert json.loads((tmp_path / "page.schema.json").read_text(encoding="utf-8")) == json_schema()


def test_model_show_counts_the_parameters_of_every_part() -> None:
    done = mirasol("model", "show")
    assert done.returncode == 0, done.stderr
    table = done.stdout.split("\n\n")[1].splitlines()[1:]
    counts = {name: int(count.replace(",", "")) for name, count in (line.rsplit(maxsplit=1) for line in table)}
    assert counts.pop("total") == sum(counts.values()) > 500_000


def test_model_show_as_json_has_the_same_figures() -> None:
    shown, plain = mirasol("model", "show", "--json"), mirasol("model", "show").stdout
    figures = json.loads(shown.stdout)
    assert (figures["preset"], figures["chunks"], figures["config"]["size"]) == ("demo", 4, 48)
    assert f"{figures['parameters']['total']:,}" in plain
    assert figures["tokens"]["video"][0]["tokens"] + figures["tokens"]["audio"] == 40
    assert figures["flops"]["48"]["training_step"] > figures["flops"]["48"]["text"] > 0
    assert sum(figures["state_bytes"]["bfloat16"].values()) > 0


def test_model_show_has_the_papers_inputs_whatever_the_params_file_says(tmp_path: Path) -> None:
    done = mirasol("model", "show", "base", "--frames", "512", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("base: 16 chunks of 32 frames of 224 x 224 and 32 x 128 log-mel")
    assert "the paper's" in done.stdout
    assert "a stream's state" in done.stdout


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "huge"}, "unknown preset `huge`: expected one of demo, own, tiny, small, base"),
        ({"preset": "base", "combiner": "mean"}, "unknown combiner `mean`: expected one of transformer"),
        ({"preset": "small", "frames": 100}, "100 frames in 16 chunks: expected a multiple of 16"),
        ({"preset": "demo", "frames": 6}, "6 frames in 4 chunks: expected a multiple of 4"),
        ({"preset": "base", "frames": 0}, "0 frames, expected at least 1"),
        ({"preset": "base", "frames": 64}, "no such model: tube 8x4x4 is 8 frames long, a chunk has 4"),
        ({"preset": "base", "size": 60}, "frames of 60 pixels, expected a multiple of 112"),
    ],
)
def test_model_show_refuses_what_it_cannot_build(given: dict[str, Any], message: str) -> None:
    nothing = {"frames": None, "size": None, "combiner": None, "file": ROOT / "params.yaml"}
    with pytest.raises(MirasolError, match=message):
        model.show(**nothing | given)


def test_model_memory_chooses_a_setting_and_writes_its_figures(tmp_path: Path) -> None:
    done = mirasol(
        "model", "memory", "--batch", "4", "--gpus", "2", "--memory", "1", "--json", str(tmp_path / "f.json")
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "f.json").read_text())
    assert set(found) == {"name", "commit", "machine", "ratios", "figures"}
    value = found["ratios"]["gib_per_gpu"]["value"]
    assert 0 < value < 1 and value == pytest.approx(sum(found["figures"]["gib"].values()), rel=1e-3)
    assert "training:\n  precision: bf16-mixed\n  sharding: none\n" in done.stdout


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch": 3, "gpus": 2}, "a batch of 3 clips does not divide among 2 GPUs: choose a multiple of 2"),
        ({"batch": 4, "micro_batch": 3}, "micro_batch is 3, but a GPU's share of 4 clips is no multiple of it"),
        ({"batch": 4, "sharding": "full"}, "sharding is full on one GPU"),
        ({"batch": 4, "gpus": 2, "sharding": "hybrid"}, "sharding is hybrid on one node"),
        ({"batch": 4, "recompute": "all"}, "--recompute all: expected one of none, selective, full"),
        ({"batch": 4, "size": 50}, "no such model: frames of 50 pixels"),
        ({"batch": 4, "size": 0}, "frames of 0 pixels, expected at least 1"),
        ({"batch": 1, "memory": 0.001}, "expected at most 0.0 .* take more devices"),
    ],
)
def test_model_memory_refuses_a_step_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(MirasolError, match=message):
        memory(MemoryOptions(**given, file=ROOT / "params.yaml"))


def test_every_preset_is_in_the_help() -> None:
    assert PRESET_HELP.startswith("demo, own, tiny, small or base;")


def test_import_prints_its_summary(tmp_path: Path) -> None:
    (tmp_path / "val_qa.json").write_text(
        '[{"answer": "a", "id": 1, "question": "who?", "video_id": 6513, "category_id": 1}]'
    )
    arguments = ("data", "import", "msrvtt-qa", "--annotations", str(tmp_path), "--dry-run")
    done = mirasol(*arguments, "--json")
    assert json.loads(done.stdout)["rows"] == {"val": 1}
    assert done.stderr == "nothing was written\n"
    assert "rows val 1" in [" ".join(line.split()) for line in mirasol(*arguments).stdout.splitlines()]


def test_run_outside_a_project_says_where_to_run(tmp_path: Path) -> None:
    done = mirasol("run", cwd=tmp_path)
    assert done.returncode == 2
    assert "run in the project's folder" in done.stderr


def test_answer_refuses_without_importing_torch(tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv = ['mirasol', 'answer', 'clip.mp4', 'what?']\n"
        "from mirasol.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    print(stop.code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "2 False\n"
    assert done.stderr.startswith("error: ")


def test_doctor_names_what_it_looked_at() -> None:
    done = mirasol("doctor", "--json")
    subjects = {finding["subject"] for finding in json.loads(done.stdout)["findings"]}
    assert {"python", "packages", "cores", "memory", "gpu", "codecs", "free disk", "git", "dvc"} <= subjects
    assert done.returncode == (1 if '"state": "missing"' in done.stdout else 0)
