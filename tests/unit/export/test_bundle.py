"""A bundle is written whole or not at all, and says where it comes from."""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.bundle import CLIP, bundle_model, export_tiny, tiny_bundle, write_tokenizer
from support.commands import commands, fault, in_document

from mirasol.core.errors import MirasolError
from mirasol.core.files import sha256_file
from mirasol.export import bundle as module
from mirasol.export import onnx as exporter
from mirasol.export.bundle import TrainedModel, export_bundle, provenance
from mirasol.export.config import ExportSpec
from mirasol.export.io_spec import step_graphs
from mirasol.export.model_card import model_card
from mirasol.runtime.backends.onnxruntime import load
from mirasol.runtime.contract import GRAPHS, read_contract
from mirasol.runtime.engine import relative

FILES = {
    "LICENSE",
    "README.md",
    "contract.json",
    "audio_step.onnx",
    "audio_step.opset23.onnx",
    "encoder_combiner_step.onnx",
    "encoder_combiner_step.opset23.onnx",
    "golden.npz",
    "latent_step.onnx",
    "latent_step.opset23.onnx",
    "text_step.onnx",
    "text_step.opset23.onnx",
    "tokenizer.json",
}


@pytest.fixture
def exported_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the graphs from the shared bundle: exporting is slow, and test_to_onnx shows that it repeats itself."""
    monkeypatch.setattr(module, "write_onnx", lambda _, __, file, ___: shutil.copyfile(tiny_bundle() / file.name, file))


def test_a_bundle_holds_its_files_and_their_hashes() -> None:
    folder = tiny_bundle()
    assert {file.name for file in folder.iterdir()} == FILES
    contract = read_contract(folder)
    assert contract.clip == CLIP
    assert set(contract.files) == FILES - {"contract.json"}


@pytest.mark.usefixtures("exported_before")
def test_equal_models_give_equal_bundles_in_place_of_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "old").write_text("of an earlier export")
    export_tiny(tmp_path)
    assert {file.name: sha256_file(file) for file in out.iterdir()} == {
        file.name: sha256_file(file) for file in tiny_bundle().iterdir()
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "tokenizer.json"]


def test_each_opset_has_all_graphs_and_the_default_is_the_lower() -> None:
    contract = read_contract(tiny_bundle())
    assert {opset: set(files) for opset, files in contract.opsets.items()} == {"18": set(GRAPHS), "23": set(GRAPHS)}
    assert (contract.opset, contract.licence) == (18, "LICENSE")
    for opset, files in contract.opsets.items():
        model = onnx.load(tiny_bundle() / files["latent_step"])
        assert [entry.version for entry in model.opset_import] == [int(opset)]
        assert any(node.op_type == "Attention" for node in model.graph.node) == (opset == "23")


def test_weights_over_the_limit_lie_once_beside_the_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "EXTERNAL_BYTES", 1)
    graph = step_graphs(bundle_model())[2]
    weights = exporter.Weights(tmp_path / "text_step.onnx.data")
    files = {18: "text_step.onnx", 23: "text_step.opset23.onnx"}
    for opset, file in files.items():
        exporter.write_onnx(graph, opset, tmp_path / file, weights)
    assert {path.name for path in tmp_path.iterdir()} == {*files.values(), "text_step.onnx.data"}
    large = sum(p.nbytes for p in graph.module.parameters() if p.nbytes >= exporter.SMALL)
    assert large <= weights.file.stat().st_size <= 1.05 * large, "the other opset has no weights of its own"
    random = np.random.default_rng(0)
    inputs = {spec.name: tensor.numpy() for spec, tensor in zip(graph.spec.inputs, graph.example(), strict=True)}
    inputs["memory"] = random.normal(size=inputs["memory"].shape).astype(np.float32)
    inputs["memory_valid"][:] = True
    for file in files.values():
        inside, outside = (onnx.load(folder / file).graph.initializer for folder in (tiny_bundle(), tmp_path))
        assert {t.name: numpy_helper.to_array(t).tobytes() for t in inside} == {
            t.name: numpy_helper.to_array(t).tobytes() for t in outside
        }
        expected, found = (load(folder / file, graph.spec, 1)(inputs) for folder in (tiny_bundle(), tmp_path))
        assert relative(found["logits"], expected["logits"]) <= 1e-6  # onnxruntime multiplies mapped weights otherwise


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "bundle").mkdir()
    monkeypatch.setattr(module, "write_onnx", full)
    with pytest.raises(MirasolError, match="disk is full"):
        export_tiny(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["bundle", "tokenizer.json"]


@pytest.mark.usefixtures("exported_before")
def test_graphs_that_do_not_compute_what_torch_does_are_never_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = module.golden

    def wrong(*arguments: object) -> dict[str, object]:
        return true(*arguments) | {"h": true(*arguments)["h"] + 0.01}

    monkeypatch.setattr(module, "golden", wrong)
    with pytest.raises(MirasolError, match="golden outputs differ"):
        export_tiny(tmp_path)
    assert not (tmp_path / "bundle").exists()


def test_a_tokenizer_of_another_size_is_refused(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json")
    values = json.loads(tokenizer.read_text())
    values["pieces"].pop()
    tokenizer.write_text(json.dumps(values))
    with pytest.raises(MirasolError, match="has 14 pieces, the model was trained with 15"):
        export_bundle(TrainedModel(bundle_model(), CLIP, tokenizer, 4), tmp_path / "bundle", ExportSpec())


def test_provenance_names_commit_data_and_params(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("clip: {}\n")
    (tmp_path / "data.dvc").write_text("outs:\n- md5: 0123.dir\n  path: data\n")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@x"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    found = provenance(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", found.commit or "")
    assert (found.changed, found.data) == (False, "0123.dir")
    assert found.params == sha256_file(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("clip: {fps: 9}\n")
    assert provenance(tmp_path).changed


def test_a_commit_of_results_alone_does_not_change_the_provenance(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("clip: {}\n")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@x"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    before = provenance(tmp_path)
    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    for command in (["add", "."], ["commit", "-qm", "results"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    assert provenance(tmp_path) == before


def test_provenance_without_a_repository(tmp_path: Path) -> None:
    found = provenance(tmp_path)
    assert (found.commit, found.changed, found.data, found.params) == (None, False, None, None)


def test_the_card_shows_scores_with_their_interval() -> None:
    contract = read_contract(tiny_bundle())
    cell = {"exact_match": 0.97, "ci95": [0.95, 0.98], "chance": 0.2, "n": 900}
    card = model_card(contract, {"overall": cell, "families": {"count": cell}, "split": "test"})
    assert "| count | 0.970 | 0.950 to 0.980 | 0.20 | 900 |" in card
    assert "Not evaluated." in model_card(contract, {})


def test_every_command_of_the_card_can_be_run() -> None:
    card = (tiny_bundle() / "README.md").read_text(encoding="utf-8")
    found = [command for line in in_document(card) for command in commands(line)]
    assert ["pip", "install", "mirasol-av[runtime]"] in found
    assert [(command, why) for command in found if (why := fault(command))] == []
