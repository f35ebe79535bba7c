"""Tiny annotation files in the exact format of each published set, written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mirasol.data.manifest import Example, read_manifest
from mirasol.tasks.base.importer import import_set
from mirasol.tasks.registry import ADAPTERS

NEXT_MC = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
NEXT_OE = "video,frame_count,width,height,question,answer,qid,type\n"
EPIC = "annotation_id,participant_id,video_id,start_timestamp,stop_timestamp,start_sample,stop_sample"
EPIC_TEST = f"{EPIC}\nP02_106_0,P02,P02_106,00:00:03.855,00:00:04.142,92520,99408\n"
EPIC_ROW = "P01_11_0,P01,P01_11,00:01:02.069,00:01:02.993,49656,71832,clang / clatter,ceramic / wood collision,34"
MIDS = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n'


def write(folder: Path, files: dict[str, Any]) -> Path:
    """Write ``files`` to ``folder``: a text as it is, anything else as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return folder


def counted(name: str, folder: Path, files: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The summary of a dry run without media."""
    return import_set(ADAPTERS[name], write(folder / name, files), None, folder / "none", dry_run=True, **options)


def imported(name: str, folder: Path, files: dict[str, Any], media: list[str], **options: Any) -> list[Example]:
    """The rows of the manifest that ``files`` and ``media`` of a few bytes give."""
    (folder / "videos").mkdir()
    for number, path in enumerate(media):
        target = folder / "videos" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"x" * (number + 1))
    import_set(ADAPTERS[name], write(folder / name, files), folder / "videos", folder / "data", **options)
    return read_manifest(folder / "data/manifest.jsonl")


# A test split of each benchmark with a handful of rows, and a train split where the vocabulary is looked at.
SMALL: dict[str, dict[str, Any]] = {
    "msrvtt-qa": {
        "train_qa.json": [
            {"answer": a, "category_id": 1, "id": i, "question": "what is it?", "video_id": i}
            for i, a in enumerate(("dog", "dog", "cat"))
        ],
        "test_qa.json": [
            {"answer": a, "category_id": 1, "id": 100 + i, "question": q, "video_id": 7010 + i // 2}
            for i, (q, a) in enumerate(
                (("what runs?", "dog"), ("who sings?", "man"), ("what sleeps?", "cat"), ("how many?", "two"))
            )
        ],
    },
    "activitynet-qa": {
        "test_q.json": [
            {"video_name": f"v{i // 4}", "question": f"what {i}", "question_id": f"v_v{i // 4}_{i}"} for i in range(12)
        ],
        "test_a.json": [
            {"answer": f"thing {i}", "type": t, "question_id": f"v_v{i // 4}_{i}"}
            for i, t in enumerate((3, 3, 3, 8, 0, 1, 2, 4, 5, 6, 7, 8))
        ],
    },
    "nextqa-mc": {
        "test.csv": NEXT_MC
        + "11,9,9,9,why run,1,0,CW,to eat,to play,to hide,to rest,to win\n"
        + "11,9,9,9,what next,0,1,TN,jump,sit,stand,lie,cry\n"
        + "12,9,9,9,what before,4,0,TP,jump,sit,stand,lie,the cry\n"
        + "12,9,9,9,how many,2,1,DC,one,two,three,four,five\n",
    },
    "nextqa-oe": {
        "train.csv": NEXT_OE + "9,9,9,9,why run,play,0,CW\n",
        "test.csv": NEXT_OE
        + "11,9,9,9,why run,the dog runs,0,CW\n"
        + "11,9,9,9,what next,puppies,1,TN\n"
        + "12,9,9,9,how many,two,0,DC\n"
        + "12,9,9,9,is it,yes,1,DB\n",
        "add_reference_answer_test.json": {"11": {"0": "it plays", "1": "puppies"}},
        "stopwords.txt": "the\nit\nis\n",
    },
    "vggsound": {
        "test.csv": "aaaaaaaaaaa_000001.mp4,dog barking\naaaaaaaaaaa_000011.mp4,cat purring\n"
        + 'bbbbbbbbbbb_000001.mp4,"bird chirping, tweeting"\n',
    },
    "epic-sounds": {
        "EPIC_Sounds_validation.csv": f"{EPIC},description,class,class_id\n{EPIC_ROW}\n"
        + EPIC_ROW.replace("P01_11_0", "P01_11_1").replace("ceramic / wood collision", "rustle")
        + "\n"
        + EPIC_ROW.replace("P01_11", "P01_12")
        + "\n",
    },
    "kinetics-sounds": {
        "ids_to_class.json": {"test": {"aaaaaaaaaaa": "bowling", "bbbbbbbbbbb": "singing", "ccccccccccc": "bowling"}},
    },
}
