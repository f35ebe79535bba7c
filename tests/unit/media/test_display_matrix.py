"""Pictures that their container turns or mirrors are decoded as players show them."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from support.media import TINY_CLIP

from mirasol.data.shards.chunk_codec import unpack_video
from mirasol.data.shards.codec import conforms
from mirasol.data.shards.encode import SourceSlice, encode_slice
from mirasol.media.container import open_media
from mirasol.media.decode import decode_clip
from mirasol.media.resample import rotation_of

CORNERS = ((40, 90), (140, 200))  # brightness of the quarters, as they are stored
# x' = ax + cy, y' = bx + dy: the eight ways to lay a square on itself.
SIGNS = list(itertools.product((1, -1), repeat=2))
MATRICES = [(a, 0, 0, d) for a, d in SIGNS] + [(0, b, c, 0) for b, c in SIGNS]


def quartered(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """A video of 16 x 16 that conforms to TINY_CLIP, its quarters of different brightness, with this matrix."""
    planes = np.full((24, 16), 128, np.uint8)
    planes[:16] = np.kron(CORNERS, np.ones((8, 8)))
    with av.open(str(path), "w") as container:
        options = {"qp": "4", "x264-params": "keyint=2:min-keyint=2:scenecut=0:bframes=0"}
        stream = container.add_stream("libx264", rate=8, options=options)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44  # each number times 65536
    a, b, c, d = matrix
    data[at : at + 20] = struct.pack(">5i", a << 16, b << 16, 0, c << 16, d << 16)
    path.write_bytes(data)
    return path


def shown_by_players(matrix: tuple[int, int, int, int]) -> list[list[int]]:
    """CORNERS after each quarter went where the matrix takes its centre."""
    a, b, c, d = matrix
    found = [[0, 0], [0, 0]]
    for x, y in SIGNS:
        found[b * x + d * y > 0][a * x + c * y > 0] = CORNERS[y > 0][x > 0]
    return found


def quarters(picture: np.ndarray) -> list[list[float]]:
    luma = picture[:16].astype(float)
    return [[luma[y + 2 : y + 6, x + 2 : x + 6].mean() for x in (0, 8)] for y in (0, 8)]


@pytest.mark.parametrize("matrix", MATRICES)
def test_a_picture_is_turned_and_mirrored_as_players_do(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    clip = decode_clip(quartered(tmp_path / "a.mp4", matrix), None, None, TINY_CLIP)
    np.testing.assert_allclose(quarters(clip.video[0]), shown_by_players(matrix), atol=6)


@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (1, 0, 0, -1)], ids=["upright", "upside down"])
def test_a_conforming_video_is_copied_only_upright(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = quartered(tmp_path / "a.mp4", matrix)
    with open_media(path) as container:
        assert conforms(container, TINY_CLIP)  # but for how it is turned, which its header does not tell
    (made,) = encode_slice(path, SourceSlice("media/a.mp4", ((None, None),)), TINY_CLIP, 10)
    assert made.facts["copied"] == (matrix == (1, 0, 0, 1))
    np.testing.assert_allclose(
        quarters(unpack_video(made.files["mp4"], TINY_CLIP)[0]), shown_by_players(matrix), atol=8
    )


class Unknown:
    """A frame with side data of a kind that PyAV does not know."""

    def __init__(self, rotation: int) -> None:
        self.rotation = rotation

    @property
    def side_data(self) -> dict[str, bytes]:
        raise ValueError("29 is not a valid Type")


def test_side_data_of_an_unknown_kind_leave_the_angle(tmp_path: Path) -> None:
    for number, matrix in enumerate([(1, 0, 0, 1), (-1, 0, 0, -1), (0, 1, -1, 0), (0, -1, 1, 0)]):
        with open_media(quartered(tmp_path / f"{number}.mp4", matrix)) as container:
            frame = next(container.decode(video=0))
            assert rotation_of(Unknown(frame.rotation)) == rotation_of(frame)
