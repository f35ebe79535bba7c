"""The grid of an ablation: each cell an experiment, shards made once, finished cells never again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.scratch import commit, run_dvc

from ablations.run import CELLS, HOME, prepare, run_cells
from ablations.run import finished as finished_cell
from ablations.tables import Cell, Grid
from mirasol.core.errors import MirasolError

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
pathlib.Path("reports/cell.json").write_text(json.dumps({"accuracy": {"unchanged": 0.5}}))
"""
PIPELINE = """\
stages:
  tokenizer: {{cmd: python3 stage.py tokenizer '{root}', deps: [data/manifest.jsonl], outs: [build/tokenizer]}}
  shards: {{cmd: python3 stage.py shards '{root}', deps: [data], params: [clip], outs: [build/shards]}}
  cell:
    cmd: python3 stage.py cell '{root}'
    deps: [build/shards, build/tokenizer]
    params: [clip, model, training, {{cell.yaml: null}}]
    outs: [build/cell]
    metrics: [reports/cell.json: {{cache: false}}]
"""
GRID = Grid(clips=4, minutes=0.1, tables={})


BASE, OTHER = Cell((), 1), Cell((("cell.pretrain", True), ("model.x", 2)), 1)
BAD, CUT = Cell((("model.x", 13),), 1), Cell((("clip.chunks", 1),), 1)


@pytest.fixture(scope="module")
def ran(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project whose grid of three cells has run, one of them in vain, and what was said of that."""
    root = tmp_path_factory.mktemp("grid") / "project"
    shutil.copytree(finished, root, symlinks=True)
    (root / "recipes").mkdir()
    (root / "recipes/ablations.yaml").write_text("clip: {chunks: 8}\nmodel: {x: 1}\ntraining: {seed: 1}\n")
    (root / "ablations").mkdir()
    (root / "ablations/cell.yaml").write_text("pretrain: false\npermute: false\n")
    (root / "ablations/pipeline.yaml").write_text(PIPELINE.format(root=root.parent))
    (root / "stage.py").write_text(STAGE)
    commit(root)
    with pytest.raises(MirasolError) as error:
        run_cells(root, [BAD, BASE, OTHER], GRID, 2, quiet)
    return root, str(error.value)


def stages(root: Path) -> list[str]:
    """What ran since the last call."""
    log = root.parent / "log"
    names = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return names


def quiet(line: str) -> None:
    pass


def test_shards_are_made_once_and_finished_cells_never_again(ran: tuple[Path, str]) -> None:
    root, _ = ran
    assert sorted(stages(root)) == ["cell", "cell", "cell", "shards", "tokenizer"]
    run_cells(root, [BASE, OTHER, CUT], GRID, 1, quiet)
    assert stages(root) == ["shards", "cell"]


def test_cells_are_experiments_with_their_parameters(ran: tuple[Path, str]) -> None:
    home = ran[0] / HOME
    listed = json.loads(run_dvc(home, "exp", "show", "--json"))
    names = {e["name"] for rev in listed for e in rev["experiments"] or ()}
    assert {BASE.name, OTHER.name} <= names
    kept = (home / CELLS / OTHER.name / "marks.jsonl").read_text()
    assert "x: 2" in kept and "pretrain: true" in kept


def test_a_cell_that_fails_leaves_the_others(ran: tuple[Path, str]) -> None:
    root, said = ran
    assert said.startswith(f"1 of 3 cells failed:\n{BAD.name} (model.x=13 training.seed=1)")
    assert "thirteen cannot be trained" in said
    reports = [finished_cell(root / HOME, cell) for cell in (BAD, BASE, OTHER)]
    assert [report is not None for report in reports] == [False, True, True]


def test_another_recipe_is_refused(ran: tuple[Path, str]) -> None:
    root, _ = ran
    recipe = root / "recipes/ablations.yaml"
    before = recipe.read_text()
    recipe.write_text(before.replace("x: 1", "x: 3"))
    try:
        with pytest.raises(MirasolError, match=r"another recipes/ablations.yaml"):
            prepare(root, 4, quiet)
    finally:
        recipe.write_text(before)


def test_sections_that_no_cell_has_may_change(ran: tuple[Path, str]) -> None:
    root, _ = ran
    recipe = root / "recipes/ablations.yaml"
    before = recipe.read_text()
    recipe.write_text(before + "\nexport:\n  opset: 19\n")
    try:
        assert prepare(root, 4, quiet) == root / HOME
    finally:
        recipe.write_text(before)
