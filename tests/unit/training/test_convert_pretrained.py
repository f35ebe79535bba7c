"""Open weights from files: read, refused and written tensors, and a phase that starts from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.model import tiny_config, tiny_model
from support.openweights import gpt_neox, gpt_neox_config, timm_vit

from mirasol.core.errors import MirasolError
from mirasol.core.files import write_json
from mirasol.model.config import Sizes
from mirasol.pipeline import stages
from mirasol.tokenizer import FORMAT, SPECIAL, Tokenizer
from mirasol.training.config import PhaseRun
from mirasol.training.convert_pretrained import Sources, import_weights
from mirasol.training.weights import CONFIG, WEIGHTS, find_pinned, load_model, pinned, save_weights

SIZES = Sizes(layers=2, width=24, hidden=48, heads=2, head=12, eps=1e-6)
TEXT = Sizes(layers=2, width=24, hidden=48, heads=2, head=12)
OURS = Tokenizer([(piece, -1.0) for piece in (*SPECIAL, "▁a", "▁b", "c")], 12)
THEIRS = {"<|end|>": 0, "Ġb": 1, "c": 2, "Ġa": 3, "zz": 4}
CONFIGURED = tiny_config(vit=SIZES, text=TEXT, vocabulary=8)


def vit_file(folder: Path, **settings: object) -> Path:
    save_file(timm_vit(SIZES, patch=8, places=4), folder / "vit.safetensors")
    write_json(folder / "config.json", settings)
    return folder / "vit.safetensors"


def text_file(folder: Path, **settings: object) -> Path:
    folder.mkdir()
    save_file(gpt_neox(TEXT, 6), folder / "model.safetensors")  # one row more than there are pieces, as is usual
    write_json(folder / "config.json", gpt_neox_config(TEXT, 6) | settings)
    write_json(folder / "tokenizer.json", {"model": {"type": "BPE", "vocab": THEIRS}, "added_tokens": []})
    return folder / "model.safetensors"


def test_the_written_folder_is_a_model_that_holds_the_files_weights(tmp_path: Path) -> None:
    file = vit_file(tmp_path, pretrained_cfg={"mean": [0.5] * 3, "std": [0.5] * 3})
    report = import_weights(CONFIGURED, OURS, 1, Sources(vision=file), tmp_path / "out")
    model = load_model(tmp_path / "out")
    assert model.config == CONFIGURED
    assert torch.equal(model.vit.blocks[0].qkv.weight, timm_vit(SIZES, patch=8, places=4)["blocks.0.attn.qkv.weight"])
    assert {how for part, how, _, _ in report.rows if part == "vit"} == {"loaded"}
    assert sum(count for _, _, count, _ in report.rows) == sum(p.numel() for p in model.parameters())


def test_the_same_files_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    file = vit_file(tmp_path)
    for out in ("a", "b"):
        import_weights(CONFIGURED, OURS, 3, Sources(vision=file, pixels="half"), tmp_path / out)
    for name in (WEIGHTS, CONFIG):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_vision_text_and_earlier_weights_come_together(tmp_path: Path) -> None:
    earlier = tiny_model(vit=SIZES, text=TEXT, vocabulary=8)
    save_weights(tmp_path / "earlier", earlier)
    sources = Sources(tmp_path / "earlier", vit_file(tmp_path), text_file(tmp_path / "text"), pixels="half")
    report = import_weights(CONFIGURED, OURS, 1, sources, tmp_path / "out")
    model = load_model(tmp_path / "out")
    assert torch.equal(model.audio.project.weight, earlier.audio.project.weight)
    assert not torch.equal(model.vit.blocks[0].qkv.weight, earlier.vit.blocks[0].qkv.weight)
    row = gpt_neox(TEXT, 6)["gpt_neox.embed_in.weight"][3] / 24**0.5
    torch.testing.assert_close(model.text.embedding.weight[5], row)  # "▁a" here, "Ġa" there
    assert "GPT-NeoX, 3 of 8 pieces, the others random" in {source for _, _, _, source in report.rows}
    assert "random" not in {how for _, how, _, _ in report.rows}


def test_everything_that_does_not_fit_is_reported_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    wrong = timm_vit(SIZES, patch=8, places=4) | {"norm.bias": torch.zeros(3)}
    save_file(wrong, tmp_path / "vit.safetensors")
    text = text_file(tmp_path / "text", rotary_pct=0.25)
    with pytest.raises(MirasolError) as error:
        import_weights(
            CONFIGURED,
            OURS,
            1,
            Sources(vision=tmp_path / "vit.safetensors", text=text, pixels="half"),
            tmp_path / "out",
        )
    assert "norm.bias: [3] in the file, expected [24]" in str(error.value)
    assert "rotary_pct: 0.25" in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "vit.pth", "renamed.safetensors"])
def test_a_pickle_is_never_read(tmp_path: Path, name: str) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(MirasolError, match="a pickle, and reading one runs the code in it"):
        import_weights(CONFIGURED, OURS, 1, Sources(vision=tmp_path / name, pixels="half"), tmp_path / "out")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    file = vit_file(tmp_path)
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(MirasolError, match=r"vit.safetensors: no safetensors file, or a damaged one"):
        import_weights(CONFIGURED, OURS, 1, Sources(vision=file, pixels="half"), tmp_path / "out")


def test_pixels_are_read_beside_the_file_or_asked_for(tmp_path: Path) -> None:
    file = vit_file(tmp_path)
    with pytest.raises(MirasolError, match="give --pixels imagenet"):
        import_weights(CONFIGURED, OURS, 1, Sources(vision=file), tmp_path / "out")
    imagenet = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    write_json(tmp_path / "preprocessor_config.json", imagenet)
    import_weights(CONFIGURED, OURS, 1, Sources(vision=file), tmp_path / "auto")
    import_weights(CONFIGURED, OURS, 1, Sources(vision=file, pixels="imagenet"), tmp_path / "said")
    assert pinned(tmp_path / "auto").split("@")[1] == pinned(tmp_path / "said").split("@")[1]


def test_a_text_without_its_pieces_is_refused(tmp_path: Path) -> None:
    text = text_file(tmp_path / "text")
    (tmp_path / "text" / "tokenizer.json").unlink()
    with pytest.raises(MirasolError, match="embeddings without their pieces"):
        import_weights(CONFIGURED, OURS, 1, Sources(text=text), tmp_path / "out")


def test_an_earlier_vocabulary_needs_its_tokenizer_where_it_differs(tmp_path: Path) -> None:
    save_weights(tmp_path / "earlier", tiny_model(vit=SIZES, text=TEXT, vocabulary=7))
    with pytest.raises(MirasolError, match="a vocabulary of 7 and of 8 here"):
        import_weights(CONFIGURED, OURS, 1, Sources(earlier=tmp_path / "earlier"), tmp_path / "out")
    pieces = [[piece, -1.0] for piece in (*SPECIAL, "c", "▁a")]
    write_json(tmp_path / "old.json", {"format": FORMAT, "max_text": 12, "pieces": pieces})
    sources = Sources(earlier=tmp_path / "earlier", pieces=tmp_path / "old.json")
    import_weights(CONFIGURED, OURS, 1, sources, tmp_path / "out")
    before, after = (load_model(tmp_path / name).text.embedding.weight for name in ("earlier", "out"))
    assert torch.equal(after[7], before[5])


def test_our_own_text_weights_are_a_text_file_too(tmp_path: Path) -> None:
    earlier = tiny_model(text=TEXT, vocabulary=8)
    save_weights(tmp_path / "earlier", earlier)
    import_weights(CONFIGURED, OURS, 1, Sources(text=tmp_path / "earlier" / WEIGHTS), tmp_path / "out")
    model = load_model(tmp_path / "out")
    assert torch.equal(model.text.blocks[0].mlp.up.weight, earlier.text.blocks[0].mlp.up.weight)


def test_a_pinned_folder_is_found_only_while_it_holds_those_weights(tmp_path: Path) -> None:
    save_weights(tmp_path / "init", tiny_model())
    value = pinned(tmp_path / "init")
    assert find_pinned(value) == tmp_path / "init"
    assert find_pinned("") is None
    save_weights(tmp_path / "init", tiny_model(seed=5))
    with pytest.raises(MirasolError, match=f"holds other weights.*set it to {pinned(tmp_path / 'init')}"):
        find_pinned(value)
    (tmp_path / "init" / WEIGHTS).unlink()
    with pytest.raises(MirasolError, match="no such file; make it with `mirasol weights import`"):
        find_pinned(value)


def test_the_first_phase_starts_from_what_training_init_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_weights(tmp_path / "init", tiny_model())
    started: list[Path | None] = []
    monkeypatch.setattr(stages, "model_config", lambda params, phase: None)

    def run_phase(run: PhaseRun, config: None) -> None:
        started.append(run.paths.init)
        raise MirasolError("far enough")

    monkeypatch.setattr("mirasol.training.trainer.run_phase", run_phase)
    text = (Path(__file__).parents[3] / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace('init: ""', f"init: {json.dumps(pinned(tmp_path / 'init'))}"))
    from mirasol.pipeline.params.load import load_params

    with pytest.raises(MirasolError, match="far enough"):
        stages.pretrain(load_params(tmp_path / "params.yaml"))
    assert started == [tmp_path / "init"]


def test_the_folder_of_a_source_is_not_written_to(tmp_path: Path) -> None:
    file = vit_file(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(MirasolError, match=r"holds vit\.safetensors, which is read here: choose another folder"):
        import_weights(CONFIGURED, OURS, 1, Sources(vision=file, pixels="half"), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    tensors = timm_vit(SIZES, patch=8, places=4)
    tensors["blocks.0.attn.qkv.weight"][0, 0] = float("nan")
    save_file(tensors, tmp_path / "vit.safetensors")
    with pytest.raises(MirasolError, match=r"vit\.blocks\.0\.qkv\.weight numbers that are not finite"):
        import_weights(
            CONFIGURED, OURS, 1, Sources(vision=tmp_path / "vit.safetensors", pixels="half"), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_told_before_its_pixels_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="no such file"):
        import_weights(CONFIGURED, OURS, 1, Sources(vision=tmp_path / "none.safetensors"), tmp_path / "out")


def test_pieces_without_a_text_are_refused(tmp_path: Path) -> None:
    sources = Sources(vision=vit_file(tmp_path), pixels="half", pieces=tmp_path / "tokenizer.json")
    with pytest.raises(MirasolError, match="goes with --text or --from"):
        import_weights(CONFIGURED, OURS, 1, sources, tmp_path / "out")


def test_another_epsilon_of_norms_is_no_other_size(tmp_path: Path) -> None:
    save_weights(tmp_path / "before", tiny_model(vit=Sizes(2, 24, 48, 2, 12), text=TEXT, vocabulary=8))
    report = import_weights(CONFIGURED, OURS, 1, Sources(earlier=tmp_path / "before"), tmp_path / "out")
    assert {how for part, how, _, _ in report.rows if part == "vit"} == {"loaded"}
