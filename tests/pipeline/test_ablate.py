"""The grid of an ablation: each cell an experiment, shards made once, finished cells never again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.scratch import commit, git, run_dvc

from mirasol.core.errors import MirasolError
from mirasol.evaluation.ablation_tables import Cell, Grid
from mirasol.ops.ablate import CELLS, HOME, finished, run_cells

STAGE = """\
import json, pathlib, sys

name, root = sys.argv[1:]
with open(root + "/log", "a") as log:
    log.write(name + "\\n")
params = pathlib.Path("params.yaml").read_text()
if name == "cell" and "x: 13" in params:
    sys.exit("thirteen cannot be trained")
folder = pathlib.Path("build", name)
folder.mkdir(parents=True)
(folder / "marks.jsonl").write_text(params + pathlib.Path("cell.yaml").read_text())
pathlib.Path("reports").mkdir(exist_ok=True)
pathlib.Path("reports/cell.json").write_text(json.dumps({"accuracy": {"full": 0.5}}))
"""
PIPELINE = """\
stages:
  tokenizer: {{cmd: python3 stage.py tokenizer {root}, deps: [data/manifest.jsonl], outs: [build/tokenizer]}}
  shards: {{cmd: python3 stage.py shards {root}, deps: [data], params: [clip], outs: [build/shards]}}
  cell:
    cmd: python3 stage.py cell {root}
    deps: [build/shards, build/tokenizer]
    params: [clip, model, training, {{cell.yaml: null}}]
    outs: [build/cell]
    metrics: [reports/cell.json: {{cache: false}}]
"""
GRID = Grid(clips=4, minutes=0.1, tables={})


@pytest.fixture
def root(project: Path, tmp_path: Path) -> Path:
    (project / "recipes").mkdir()
    (project / "recipes/ablations.yaml").write_text("clip: {chunks: 8}\nmodel: {x: 1}\ntraining: {seed: 1}\n")
    (project / "ablations").mkdir()
    (project / "ablations/cell.yaml").write_text("pretrain: false\npermute: false\n")
    (project / "ablations/pipeline.yaml").write_text(PIPELINE.format(root=tmp_path))
    (project / "stage.py").write_text(STAGE)
    commit(project)
    return project


def stages(root: Path) -> list[str]:
    """What ran since the last call."""
    log = root.parent / "log"
    names = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return names


def quiet(line: str) -> None:
    pass


def test_cells_are_experiments_that_are_kept_and_run_once(root: Path) -> None:
    base, other = Cell((), 1), Cell((("cell.pretrain", True), ("model.x", 2)), 1)
    home = run_cells(root, [base, other], GRID, 2, quiet)
    assert sorted(stages(root)) == ["cell", "cell", "shards", "tokenizer"]
    listed = json.loads(run_dvc(home, "exp", "show", "--json"))
    names = {e["name"] for rev in listed for e in rev["experiments"] or ()}
    assert names == {base.name, other.name}
    kept = (home / CELLS / other.name / "marks.jsonl").read_text()
    assert "x: 2" in kept and "pretrain: true" in kept
    assert finished(home, other)["commit"] == git(home, "rev-parse", "HEAD")  # type: ignore[index]

    cut = Cell((("clip.chunks", 1),), 1)
    run_cells(root, [base, other, cut], GRID, 1, quiet)
    assert stages(root) == ["shards", "cell"]


def test_a_cell_that_fails_leaves_the_others(root: Path) -> None:
    bad, good = Cell((("model.x", 13),), 1), Cell((), 1)
    with pytest.raises(MirasolError, match=r"1 of 2 cells failed:\n.*model.x=13(?s:.*)thirteen cannot be trained"):
        run_cells(root, [bad, good], GRID, 1, quiet)
    assert finished(root / HOME, good) is not None
    assert finished(root / HOME, bad) is None


def test_another_recipe_is_refused(root: Path) -> None:
    run_cells(root, [Cell((), 1)], GRID, 1, quiet)
    recipe = root / "recipes/ablations.yaml"
    recipe.write_text(recipe.read_text().replace("x: 1", "x: 3"))
    with pytest.raises(MirasolError, match=r"another recipes/ablations.yaml"):
        run_cells(root, [Cell((), 2)], GRID, 1, quiet)
