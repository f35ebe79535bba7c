"""Parts of shards: one pass over a source, only new clips encoded, kept parts verified or made again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support.inline import inline_workers
from support.media import TINY_CLIP, example, tone, write_data, write_media

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import Example, clips_of, read_manifest, write_manifest
from mirasol.data.shards import build as shards_module
from mirasol.data.shards import encode as encode_module
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.data.shards.encode import SLICE_CLIPS, Job, code_fingerprint, encode_job, jobs_of, slice_name, slices_of

THREE = ShardsSpec(clips_per_shard=3, workers=1)
MADE = list[tuple[str, int]]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> MADE:
    """(name of the source, number of spans) of every pass of the decoder."""
    passes: MADE = []
    whole = encode_module.decode_clips

    def decode(path: Path, spans: list[tuple[float, float]], *rest: object) -> object:
        passes.append((path.name, len(spans)))
        return whole(path, spans, *rest)

    monkeypatch.setattr(encode_module, "decode_clips", decode)
    monkeypatch.setattr(encode_module, "sandboxed", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(shards_module, "open_workers", inline_workers)
    return passes


def long_media(folder: Path, names: tuple[str, ...] = ("a", "b", "c")) -> Path:
    """Sources of 4 s that do not conform, the last of split val."""
    for number, name in enumerate(names):
        write_media(folder / f"media/{name}.mp4", frames=40, fps=10, gop=10, sound=tone(4, hertz=200 + 50 * number))
    return folder


def spans(names: tuple[str, ...] = ("a", "b", "c"), count: int = 6) -> list[Example]:
    """Their clips in turn: a, b, c, a, b, c, ..."""
    return [
        example(
            i,
            id=f"{name}{i}",
            media=f"media/{name}.mp4",
            start=0.5 * i,
            end=0.5 * i + 0.5,
            group=name,
            split="val" if name == "c" else "train",
        )
        for i in range(count)
        for name in names
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_a_source_is_decoded_once_wherever_its_clips_lie(tmp_path: Path, made: MADE) -> None:
    data = long_media(tmp_path / "data")
    write_manifest(data / "manifest.jsonl", spans())
    report = build_shards(data, tmp_path / "shards", TINY_CLIP, THREE)
    assert (report["clips"], report["shards"]) == (18, 6)
    assert made == [("a.mp4", 6), ("b.mp4", 6), ("c.mp4", 6)]


def test_a_span_of_two_splits_is_made_once(tmp_path: Path, made: MADE) -> None:
    data = long_media(tmp_path / "data", ("a",))
    rows = [example(i, media="media/a.mp4", start=1.0, end=1.5, split=s) for i, s in enumerate(("train", "val"))]
    write_manifest(data / "manifest.jsonl", rows)
    report = build_shards(data, tmp_path / "shards", TINY_CLIP, THREE)
    assert (report["clips"], made) == (2, [("a.mp4", 1)])


def test_a_source_with_many_clips_is_read_in_slices_of_its_time() -> None:
    rows = [example(i, media="media/a.mp4", start=float(i * 37 % 100), end=None, split="train") for i in range(100)]
    parts, places = slices_of(clips_of(rows))
    starts = [[start for start, _ in part.spans] for part in parts]
    assert [len(s) for s in starts] == [SLICE_CLIPS, SLICE_CLIPS, SLICE_CLIPS, 4]
    assert [start for some in starts for start in some] == [float(i) for i in range(100)]
    assert places["media/a.mp4", (40.0, None)] == (1, 40 - SLICE_CLIPS)


def test_the_order_of_the_rows_does_not_change_a_clip(tmp_path: Path, made: MADE) -> None:
    data = long_media(tmp_path / "data")
    found = []
    for number, rows in enumerate((spans(), spans()[::-1])):
        write_manifest(data / "manifest.jsonl", rows)
        build_shards(data, tmp_path / f"{number}", TINY_CLIP, ShardsSpec(clips_per_shard=1, workers=1))
        found.append(sorted(p.read_bytes() for p in (tmp_path / f"{number}").glob("*.tar")))
    assert found[0] == found[1]


def test_new_rows_add_shards_and_old_ones_stay(tmp_path: Path, made: MADE) -> None:
    data = write_data(tmp_path / "data", 16)
    rows = read_manifest(data / "manifest.jsonl")
    write_manifest(data / "manifest.jsonl", [r for r in rows if int(r.group[1:]) < 12])  # 6 of train, 3 of val and test
    build_shards(data, tmp_path / "shards", TINY_CLIP, THREE)
    before = contents(tmp_path / "shards")
    write_manifest(data / "manifest.jsonl", rows)
    report = build_shards(data, tmp_path / "shards", TINY_CLIP, THREE)
    after = contents(tmp_path / "shards")
    assert report["reused"] == 12
    assert {n: after[n] for n in before if n != "shards.json"} == {
        n: d for n, d in before.items() if n != "shards.json"
    }
    assert sorted(n for n in after if n not in before and n.endswith(".tar")) == [
        "test-00001.tar",
        "train-00002.tar",
        "val-00001.tar",
    ]


def test_a_run_that_reuses_gives_the_bytes_of_a_clean_one(tmp_path: Path, made: MADE) -> None:
    data = long_media(tmp_path / "data")
    write_manifest(data / "manifest.jsonl", spans(count=3))
    build_shards(data, tmp_path / "shards", TINY_CLIP, THREE)
    write_media(data / "media/b.mp4", frames=40, fps=10, gop=10)  # without sound
    write_manifest(data / "manifest.jsonl", spans(count=5)[::-1])
    build_shards(data, tmp_path / "shards", TINY_CLIP, THREE)
    build_shards(data, tmp_path / "clean", TINY_CLIP, THREE)
    assert contents(tmp_path / "shards") == contents(tmp_path / "clean")


def test_a_changed_source_is_made_again_and_no_other(tmp_path: Path, made: MADE) -> None:
    data = long_media(tmp_path / "data")
    write_manifest(data / "manifest.jsonl", spans())
    build_shards(data, tmp_path / "shards", TINY_CLIP, THREE)
    made.clear()
    write_media(data / "media/b.mp4", frames=40, fps=10, gop=10)
    report = build_shards(data, tmp_path / "shards", TINY_CLIP, THREE)
    assert (made, report["reused"], report["without_audio"]) == ([("b.mp4", 6)], 12, 6)


def test_a_new_question_about_an_old_clip_decodes_nothing(tmp_path: Path, made: MADE) -> None:
    data = long_media(tmp_path / "data")
    write_manifest(data / "manifest.jsonl", spans())
    build_shards(data, tmp_path / "shards", TINY_CLIP, THREE)
    made.clear()
    rows = spans()
    write_manifest(data / "manifest.jsonl", [*rows, dataclasses.replace(rows[0], id="more", prompt="What else?")])
    report = build_shards(data, tmp_path / "shards", TINY_CLIP, THREE)
    assert (made, report["reused"], report["examples"]["train"]) == ([], 18, 13)


def test_what_failed_or_was_partial_is_tried_again(tmp_path: Path, made: MADE) -> None:
    data = write_data(tmp_path / "data", 8)
    whole = (data / "media/0.mp4").read_bytes()
    (data / "media/0.mp4").write_bytes(b"no video")
    spec = ShardsSpec(clips_per_shard=3, workers=1, max_rejected=0.5)
    build_shards(data, tmp_path / "shards", TINY_CLIP, spec)
    assert not list((tmp_path / "shards.parts").glob("??/*.again"))  # no run needs it
    (data / "media/0.mp4").write_bytes(whole)
    report = build_shards(data, tmp_path / "shards", TINY_CLIP, spec)
    assert (report["clips"], report["rejected"], report["reused"]) == (8, 0, 7)


def test_parts_that_nobody_asks_for_are_deleted(tmp_path: Path, made: MADE) -> None:
    data = long_media(tmp_path / "data")
    write_manifest(data / "manifest.jsonl", spans())
    build_shards(data, tmp_path / "shards", TINY_CLIP, THREE)
    assert len(list((tmp_path / "shards.parts").glob("??/*"))) == 3
    write_manifest(data / "manifest.jsonl", spans(("b", "c")))
    build_shards(data, tmp_path / "shards", TINY_CLIP, THREE)
    assert len(list((tmp_path / "shards.parts").glob("??/*"))) == 2


@pytest.mark.parametrize("change", ["media", "spans", "identity", "clip", "crf", "code"])
def test_whatever_decides_the_bytes_is_in_the_name(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    (part,), _ = slices_of(clips_of([example(0)]))
    before = slice_name(part, (1, 2), TINY_CLIP, 18)
    clip, crf, identity = TINY_CLIP, 18, (1, 2)
    if change == "media":
        part = dataclasses.replace(part, media="media/1.mp4")
    elif change == "spans":
        part = dataclasses.replace(part, spans=((0.0, 1.0),))
    elif change == "identity":
        identity = (1, 3)
    elif change == "clip":
        clip = dataclasses.replace(clip, size=32)
    elif change == "crf":
        crf = 19
    else:
        monkeypatch.setattr(encode_module, "code_fingerprint", lambda: "other code")
    assert slice_name(part, identity, clip, crf) != before


def test_slices_of_one_url_are_one_job_so_that_it_is_fetched_once(tmp_path: Path) -> None:
    rows = [
        example(i, media=media, start=float(i), end=None)
        for media in ("s3://bucket/a.mp4", "media/b.mp4")
        for i in range(70)
    ]
    parts, _ = slices_of(clips_of([dataclasses.replace(r, id=f"{r.media}{r.id}") for r in rows]))
    jobs = list(jobs_of(tmp_path, dict(enumerate(parts)), TINY_CLIP, 18))
    assert [numbers for numbers, _ in jobs] == [[0, 1, 2], [3], [4], [5]]


def test_a_worker_with_other_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match=rf"a worker has other code.*here {code_fingerprint()}, there 0123"):
        encode_job(Job(tmp_path, (), TINY_CLIP, 18, "0123"))
