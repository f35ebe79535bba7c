"""The project's dvc.yaml names everything that decides a stage's bytes: its parameters and its code."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from support.scratch import REPOSITORY

from mirasol.core import code
from mirasol.pipeline.dvc.dvc import Stage, downstream, read_stages, select
from mirasol.pipeline.stages import STAGES
from mirasol.pipeline.summary import flatten

SOURCE = REPOSITORY / "src"
PAGE = SOURCE / "mirasol/pipeline/stages.py"
# The writing side of shards, which readers reach for a name or a type; the parity check next to the timing.
READERS = (*code.CLIPS, "data/shards/build.py", "data/shards/format.py")
NEUTRAL_FOR = {
    **dict.fromkeys(("pretrain", "audio_pretrain", "finetune", "evaluate", "export"), READERS),
    "benchmark": ("export/parity.py", "media/container.py"),
}

# Keys that say how fast or how patiently, not what.
NO_STAGE_NEEDS = {
    "shards.address",
    "shards.executor",
    "shards.workers",
    "training.attention",
    "training.compile",
    "training.keep_checkpoints",
    "training.keep_every",
    "training.logger",
    "training.max_damaged",
    "training.micro_batch",
    "training.recompute",
    "training.sharding",
    "training.timeout",
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
    assert downstream(stages, readers) == {"evaluate", "export", "benchmark", "reports"}


def test_what_the_phases_share_reaches_each_of_them(stages: list[Stage]) -> None:
    assert [s.name for s in stages if "phases" in s.params] == ["pretrain", "audio_pretrain", "finetune"]


def test_evaluation_needs_everything_before_it(stages: list[Stage]) -> None:
    wanted = ["params", "tokenizer", "shards", "pretrain", "audio_pretrain", "finetune", "evaluate"]
    assert [s.name for s in select(stages, ["evaluate"])] == wanted


def test_reports_are_in_git_and_other_outputs_are_not(stages: list[Stage]) -> None:
    tree = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text())
    for name, entry in tree["stages"].items():
        for out in entry.get("outs", []) + entry.get("metrics", []):
            path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
            assert path.startswith("reports/" if options == {"cache": False} else "build/"), name


def test_only_the_last_stage_has_outputs_without_cache(stages: list[Stage]) -> None:
    """Another would lose its run cache by one."""
    assert [s.name for s in stages if any(out.startswith("reports/") for out in s.outs)] == ["reports"]


def test_dvc_compares_one_small_file(stages: list[Stage]) -> None:
    assert [path for stage in stages for path in stage.metrics] == ["reports/metrics.json"]
    figures = flatten(json.loads((REPOSITORY / "reports/metrics.json").read_text()))
    assert len(figures) <= 30


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_code_that_the_list_names(stages: list[Stage], name: str) -> None:
    assert code_of(next(s for s in stages if s.name == name)) == sorted(set(code.STAGES[name]))


@pytest.mark.parametrize("name", ("tokenizer", "shards"))
def test_the_ablations_make_shards_by_the_same_code(name: str) -> None:
    pipeline = read_stages(REPOSITORY / "ablations/pipeline.yaml")
    assert code_of(next(s for s in pipeline if s.name == name)) == sorted(code.STAGES[name])


def test_a_cell_depends_on_training_and_on_its_own_code() -> None:
    cell = next(s for s in read_stages(REPOSITORY / "ablations/pipeline.yaml") if s.name == "cell")
    assert code_of(cell) == sorted({*code.TRAINING, "evaluation/generate.py"})
    assert "ablations/cell.py" in cell.deps


@pytest.mark.parametrize("name", STAGES)
def test_every_file_that_a_stage_reaches_is_listed(name: str) -> None:
    main = next(n for n in ast.parse(PAGE.read_text(encoding="utf-8")).body if getattr(n, "name", "") == name)
    helpers = {n.name: n for n in ast.parse(PAGE.read_text(encoding="utf-8")).body if isinstance(n, ast.FunctionDef)}
    called = [helpers[n.id] for n in ast.walk(main) if isinstance(n, ast.Name) and n.id in helpers]
    known = set(code.files_of((*code.STAGES[name], *code.NEUTRAL, *NEUTRAL_FOR.get(name, ()))))
    start = [module for node in (main, *called) for module in imported(node)]
    missing = [path for path in reached(start, known) if path.name != "__init__.py" and path not in known]
    assert [path.relative_to(code.PACKAGE).as_posix() for path in missing] == []


def code_of(stage: Stage) -> list[str]:
    """The files and packages of mirasol that a stage depends on."""
    return sorted(dep.removeprefix("src/mirasol/") for dep in stage.deps if dep.startswith("src/mirasol/"))


def reached(modules: Iterable[str], known: set[Path]) -> list[Path]:
    """Files that ``modules`` import, directly or not; imports of neutral files are not followed."""
    neutral = set(code.files_of(code.NEUTRAL))
    seen: set[Path] = set()
    todo = list(modules)
    while todo:
        path = SOURCE.joinpath(*todo.pop().split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if path.is_file() and path not in seen:
            seen.add(path)
            todo += [] if path in neutral else imported(ast.parse(path.read_text(encoding="utf-8")))
    return sorted(seen)


def imported(tree: ast.AST) -> list[str]:
    """Modules of the package that a piece of code imports."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if name.startswith("mirasol.")]
