"""The project's dvc.yaml names what decides each stage's bytes: its parameters and its code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from ruamel.yaml import YAML
from support.scratch import REPOSITORY

from mirasol.pipeline.dvc.dvc import Stage, downstream, read_stages, select
from mirasol.pipeline.run_stage import OTHERS, STAGES

SOURCE = REPOSITORY / "src"

# Rooms whose edits must not make a stage stale: files, errors and progress; the schema (values count, and DVC
# compares those); the stages themselves, which only call a room.
PLUMBING = ("core", "params", "stages")

# Files that a stage imports and that do not decide its bytes: settings (their values are in params.yaml), readers
# that get what was written or fail, and the writing side of shards in stages that only read them.
WITHOUT_EFFECT = {
    "data/loading/decoded_cache.py",
    "data/shards/chunk_codec.py",
    "data/shards/executors.py",
    "data/loading/failures.py",
    "media/sandbox.py",
    "data/linked_media.py",
    "data/manifest.py",
    "media/container.py",
    "media/clip.py",
    "data/remote.py",
    "data/storage.py",
    "data/shards/encoded_cache.py",
    "data/loading/reader.py",
    "ablations/tables.py",  # a cell reads its switches by it, and no table
    "tasks/scoring/config.py",
    "export/config.py",
    "model/config.py",
    "model/sizes/presets.py",
    "training/config.py",
    "training/weights.py",
}
WITHOUT_EFFECT_ON_READERS = {"media/resample.py", "data/shards/build.py"}
WITHOUT_EFFECT_ON_TIMING = {"export/parity.py"}

# Keys that say how fast or how patiently, not what.
NO_STAGE_NEEDS = {
    "shards.address",
    "shards.executor",
    "shards.workers",
    "training.attention",
    "training.max_damaged",
    "training.workers",
}


@pytest.fixture(scope="module")
def stages() -> list[Stage]:
    return read_stages(REPOSITORY / "dvc.yaml")


def _params() -> Iterator[str]:
    for section, values in YAML(typ="safe").load((REPOSITORY / "params.yaml").read_text()).items():
        yield from (f"{section}.{key}" for key in values)


def test_its_stages_are_the_programs(stages: list[Stage]) -> None:
    assert [s.name for s in stages] == list(STAGES)
    tree = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text())
    assert {name: entry["cmd"] for name, entry in tree["stages"].items()} == {n: f"mirasol stage {n}" for n in STAGES}


def test_every_parameter_belongs_to_a_stage(stages: list[Stage]) -> None:
    declared = {param for stage in stages for param in stage.params}
    orphans = {key for key in _params() if key not in declared and key.split(".")[0] not in declared}
    assert orphans == NO_STAGE_NEEDS


def test_every_declared_parameter_exists(stages: list[Stage]) -> None:
    keys = set(_params())
    known = keys | {key.split(".")[0] for key in keys}
    assert {param for stage in stages for param in stage.params} <= known


def test_learning_rate_of_finetuning_reaches_finetuning_and_no_further_up(stages: list[Stage]) -> None:
    readers = {s.name for s in stages if {"finetune", "finetune.lr"} & set(s.params)}
    assert readers == {"finetune"}
    assert downstream(stages, readers) == {"evaluate", "export", "benchmark"}


def test_evaluation_needs_everything_before_it(stages: list[Stage]) -> None:
    wanted = ["tokenizer", "shards", "pretrain", "audio_pretrain", "finetune", "evaluate"]
    assert [s.name for s in select(stages, ["evaluate"])] == wanted


def test_metrics_are_in_git_and_outputs_are_not(stages: list[Stage]) -> None:
    tree = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text())
    for name, entry in tree["stages"].items():
        assert all(str(out).startswith("build/") for out in entry.get("outs", ())), name
        for metric in entry.get("metrics", ()):
            ((path, options),) = metric.items()
            assert path.startswith("reports/") and options == {"cache": False}, name


def test_code_dependencies_exist(stages: list[Stage]) -> None:
    named = [dep for stage in stages for dep in stage.deps if dep.startswith("src/")]
    assert [dep for dep in named if not (REPOSITORY / dep).exists()] == []


@pytest.mark.parametrize("name", STAGES)
def test_code_that_decides_a_stage_is_its_dependency(stages: list[Stage], name: str) -> None:
    assert missing_code(next(s for s in stages if s.name == name)) == []


@pytest.mark.parametrize("name", ("tokenizer", "shards", *OTHERS))
def test_code_that_decides_a_cell_of_an_ablation_is_its_dependency(name: str) -> None:
    pipeline = read_stages(REPOSITORY / "ablations/pipeline.yaml")
    assert missing_code(next(s for s in pipeline if s.name == name)) == []


def missing_code(stage: Stage) -> list[str]:
    """Files that a stage runs and that decide its bytes, and that it does not name."""
    name = stage.name
    named = [PurePosixPath(dep).relative_to("src/mirasol") for dep in stage.deps if dep.startswith("src/mirasol")]
    ignored = set(WITHOUT_EFFECT)
    ignored |= WITHOUT_EFFECT_ON_READERS if name != "shards" else set()
    ignored |= WITHOUT_EFFECT_ON_TIMING if name == "benchmark" else set()
    return [
        path.as_posix()
        for path in sorted(_reached(f"mirasol.pipeline.{name}", ignored))
        if path.parts[0] not in PLUMBING
        and path.name != "__init__.py"
        and not any(path == dep or dep in path.parents for dep in named)
    ]


def _reached(module: str, ignored: set[str]) -> set[PurePosixPath]:
    """Files of the package that ``module`` imports, directly or not, and not through an ``ignored`` one."""
    package = SOURCE / "mirasol"
    seen: set[Path] = set()
    todo = [module]
    while todo:
        path = SOURCE.joinpath(*todo.pop().split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if path.is_file() and path not in seen and path.relative_to(package).as_posix() not in ignored:
            seen.add(path)
            todo += _imported(path)
    return {PurePosixPath(path.relative_to(package)) for path in seen}


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("mirasol."))
