"""Positions keep their meaning when the resolution changes, and still tell tokens apart."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mirasol.model.positions import lattice_positions
from mirasol.model.sizes.presets import PRESETS
from mirasol.model.tubes import Extent, Lattice


def lattices(preset: str, whole: Extent) -> dict[str, Lattice]:
    """Every kind of token that a chunk of ``whole`` frames, rows and columns has."""
    sizes = PRESETS[preset]
    shapes = [*zip(sizes.tubes, sizes.tube_strides, strict=True)]
    if sizes.patch:
        shapes.append(((1, sizes.patch, sizes.patch), (whole[0], sizes.patch, sizes.patch)))
    return {"x".join(map(str, shape)): Lattice.within(shape, stride, whole) for shape, stride in shapes}


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a, b, dim=-1)


def nearest(coarse: Tensor, fine: Tensor) -> Tensor:
    return torch.cdist(coarse, fine).argmin(dim=1)


SIZES = [("demo", 4, 48, 96), ("small", 8, 224, 448), ("small", 32, 224, 448), ("base", 8, 224, 448)]


@pytest.mark.parametrize(("preset", "frames", "low", "high"), SIZES)
def test_a_place_keeps_its_embedding_at_twice_the_size(preset: str, frames: int, low: int, high: int) -> None:
    width, small, large = PRESETS[preset].vit.width, (frames, low, low), (frames, high, high)
    for name, lattice in lattices(preset, small).items():
        finer = lattices(preset, large)[name]
        a, b = lattice.positions(small, width), finer.positions(large, width)
        same = cosine(a, b[nearest(lattice.centres(small), finer.centres(large))])
        assert same.min() >= 0.9, f"{name}: the same place has cosine {same.min():.3f}"
        other = cosine(a, b[torch.randperm(len(b), generator=torch.Generator().manual_seed(1))[: len(a)]])
        assert other.mean() < 0.5, f"{name}: random places have cosine {other.mean():.3f}"


@pytest.mark.parametrize("frames", [8, 32])
def test_neighbours_at_448_pixels_differ(frames: int) -> None:
    whole = (frames, 448, 448)
    for name, lattice in lattices("small", whole).items():
        grid = lattice.positions(whole, 1024).view(*lattice.counts, -1)
        for one, other in ((grid[:, 1:], grid[:, :-1]), (grid[:, :, 1:], grid[:, :, :-1])):
            assert cosine(one, other).max() < 0.985, name


def audio_table(frames: int, width: int) -> tuple[Tensor, Tensor]:
    """Centres and embeddings of audio patches of 8 columns x 16 mels, 4 columns a frame and 64 mels."""
    patch, whole = torch.tensor([8.0, 16.0]), torch.tensor([4.0 * frames, 64.0])
    axes = ((torch.arange(n) + 0.5) * patch[i] / whole[i] for i, n in enumerate((frames // 2, 4)))
    centres = torch.cartesian_prod(*axes)
    return centres, lattice_positions(centres, patch / whole, width)


def test_sound_keeps_its_embedding_with_four_times_the_columns() -> None:
    (coarse, a), (fine, b) = audio_table(8, 1024), audio_table(32, 1024)
    assert cosine(a, b[nearest(coarse, fine)]).min() >= 0.9


def test_a_token_is_the_mean_of_the_finer_tokens_in_its_place() -> None:
    coarse = Lattice.within((4, 16, 16), (4, 16, 16), (8, 64, 64)).positions((8, 64, 64), 96)
    fine = Lattice.within((2, 8, 8), (2, 8, 8), (8, 64, 64)).positions((8, 64, 64), 96)
    blocks = fine.view(2, 2, 4, 2, 4, 2, 96).mean(dim=(1, 3, 5)).flatten(0, 2)
    torch.testing.assert_close(blocks, coarse)


def test_an_axis_that_a_token_spans_adds_nothing() -> None:
    table = Lattice.within((4, 8, 8), (4, 8, 8), (4, 16, 16)).positions((4, 16, 16), 96)
    torch.testing.assert_close(table[:, :32], torch.zeros(4, 32))
