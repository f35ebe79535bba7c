"""The published sets: a few rows in each set's own format become the examples that they should."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.annotations import EPIC, EPIC_ROW, EPIC_TEST, MIDS, NEXT_MC, NEXT_OE, counted, imported

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import AUDIO_PROMPT, CAPTION_PROMPT, CLASSIFY_PROMPT, Example
from mirasol.tasks.registry import ADAPTERS


def test_msrvtt_qa(tmp_path: Path) -> None:
    row = {"answer": "couch", "category_id": 14, "id": 158581, "question": "what are people on?", "video_id": 6513}
    (example,) = imported("msrvtt-qa", tmp_path, {"val_qa.json": [row]}, ["video6513.mp4"])
    assert example == Example(
        "msrvtt-158581", "media/video6513.mp4", None, None, "qa", "what are people on?", ("couch",), "val",
        "video6513", "what", "none stated",
    )  # fmt: skip


MSVD = {
    "train_qa.json": [{"answer": "man", "id": 0, "question": "who sings?", "video_id": 1}],
    "val_qa.json": [{"answer": "dog", "id": 1, "question": "which barks?", "video_id": 2}],
}


def test_msvd_qa_groups_by_the_youtube_video(tmp_path: Path) -> None:
    files = MSVD | {"youtube_mapping.txt": "-4wsu_CjDBc_5_15 vid1\nzz_5b_-ukg1_5_20 vid2\n"}
    first, second = imported("msvd-qa", tmp_path, files, ["vid1.avi", "zz_5b_-ukg1_5_20.avi"])
    assert (first.media, first.group, first.family) == ("media/vid1.avi", "-4wsu_CjDBc", "who")
    assert (second.media, second.group, second.family) == ("media/zz_5b_-ukg1_5_20.avi", "zz_5b_-ukg1", "other")


def test_msvd_qa_without_the_mapping_says_what_its_groups_are(tmp_path: Path) -> None:
    assert "clips, not source videos" in counted("msvd-qa", tmp_path, MSVD)["groups_are"]


def test_activitynet_qa_joins_answers_to_questions(tmp_path: Path) -> None:
    files = {
        "test_q.json": [{"video_name": "1QIUV7WYKXg", "question": " is it wet ", "question_id": "v_1QIUV7WYKXg_3"}],
        "test_a.json": [{"answer": "no", "type": 3, "question_id": "v_1QIUV7WYKXg_3"}],
    }
    (row,) = imported("activitynet-qa", tmp_path, files, ["v_1QIUV7WYKXg.mkv"])
    assert (row.id, row.media, row.prompt) == ("v_1QIUV7WYKXg_3", "media/v_1QIUV7WYKXg.mkv", "is it wet")
    assert (row.answers, row.family, row.group, row.licence) == (("no",), "yes_no", "1QIUV7WYKXg", "Apache-2.0")


MC_ROW = '4010069381,369,640,480,"how, then",3,6,CH,roll it,tap,strum,hit with sticks,pat\n'


def test_nextqa_multiple_choice_brings_its_options(tmp_path: Path) -> None:
    files = {"val.csv": NEXT_MC + MC_ROW, "map_vid_vidorID.json": {"4010069381": "1101/4010069381"}}
    (row,) = imported("nextqa-mc", tmp_path, files, ["1101/4010069381.mp4"])
    assert (row.id, row.media, row.prompt) == ("4010069381_6", "media/1101/4010069381.mp4", "how, then")
    assert row.options == ("roll it", "tap", "strum", "hit with sticks", "pat")
    assert (row.answers, row.family, row.split) == (("hit with sticks",), "CH", "val")


def test_nextqa_names_questions_whose_right_option_stands_twice(tmp_path: Path) -> None:
    row = "1,855,640,360,how many,4,1,DC,three,one,two,seven,three\n"
    assert counted("nextqa-mc", tmp_path, {"test.csv": NEXT_MC + row})["right_option_stands_twice"] == ["1_1"]


def test_nextqa_open_ended_takes_the_second_reference_of_the_test_split(tmp_path: Path) -> None:
    row = "4924794333,1058,640,360,is it old,no,4,DB\n"
    files = {
        "val.csv": NEXT_OE + row.replace("49", "11"),
        "test.csv": NEXT_OE + row,
        "add_reference_answer_test.json": {"4924794333": {"4": "not at all"}, "1124794333": {"4": "never"}},
    }
    val, test = imported("nextqa-oe", tmp_path, files, ["4924794333.mp4", "1124794333.mp4"])
    assert (test.answers, val.answers, test.options) == (("no", "not at all"), ("no",), ())


def test_an_id_that_a_set_uses_twice_gets_a_number(tmp_path: Path) -> None:
    row = "7,855,640,360,what,{},2,TN\n"
    files = {"train.csv": NEXT_OE + row.format("laugh") + row.format("cry")}
    assert [e.id for e in imported("nextqa-oe", tmp_path, files, ["7.mp4"])] == ["7_2", "7_2#2"]


VGG_FULL = '---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,"pigeon, dove cooing",train\n'


def test_vggsound_full_file(tmp_path: Path) -> None:
    media = ["---g-f_I2yQ_000001.mp4", "--0PQM4-hqg_000030.webm"]
    train, test = imported("vggsound", tmp_path, {"vggsound.csv": VGG_FULL}, media)
    assert (train.id, train.media, train.split) == ("--0PQM4-hqg_000030", f"media/{media[1]}", "train")
    assert (train.answers, train.prompt) == (("pigeon, dove cooing",), CLASSIFY_PROMPT)
    assert (test.group, test.answers, test.split) == ("---g-f_I2yQ", ("people marching",), "test")


def test_vggsound_test_file(tmp_path: Path) -> None:
    files = {"test.csv": "glL_QEij-Kg_000300.mp4,playing hammond organ\r\n"}
    (row,) = imported("vggsound", tmp_path, files, ["glL_QEij-Kg_000300.mp4"])
    assert (row.id, row.group, row.split) == ("glL_QEij-Kg_000300", "glL_QEij-Kg", "test")


def test_vggsound_refuses_a_label_that_its_list_has_not(tmp_path: Path) -> None:
    files = {"vggsound.csv": VGG_FULL, "stat.csv": 'people marchin,1050,people\n"pigeon, dove cooing",3,animals\n'}
    with pytest.raises(MirasolError, match=r"vggsound.csv:1: label: expected one of .* did you mean 'people marchin'"):
        counted("vggsound", tmp_path, files)


def test_epic_sounds_are_segments_of_long_videos(tmp_path: Path) -> None:
    files = {"EPIC_Sounds_validation.csv": f"{EPIC},description,class,class_id\n{EPIC_ROW}\n"}
    (row,) = imported("epic-sounds", tmp_path, files, ["P01/videos/P01_11.MP4"])
    assert (row.media, row.start, row.end) == ("media/P01/videos/P01_11.MP4", 62.069, 62.993)
    assert (row.answers, row.group, row.split) == (("ceramic / wood collision",), "P01_11", "val")


def test_epic_sounds_without_labels_are_counted(tmp_path: Path) -> None:
    summary = counted("epic-sounds", tmp_path, {"EPIC_Sounds_recognition_test_timestamps.csv": EPIC_TEST})
    assert (summary["rows_without_label"], summary["examples"]) == ({"test": 1}, 0)


KINETICS = {
    "train": {"-De_GTVNO-o": "blowing nose", "abcdefghijk": "juggling"},
    "val": {"0bXjaGuxRSU": "blowing nose"},
    "test": {"-3nc7ljnlFQ": "blowing nose"},
}


def test_kinetics_sounds_takes_the_classes_of_the_list(tmp_path: Path) -> None:
    files = {"ids_to_class.json": KINETICS, "classes.json": {"blowing nose": 0}}
    media = ["-De_GTVNO-o_000010_000020.mp4", "blowing nose/0bXjaGuxRSU_000001_000011.mp4", "-3nc7ljnlFQ.mkv"]
    rows = imported("kinetics-sounds", tmp_path, files, media)
    assert [(r.split, r.media) for r in rows] == [
        ("train", f"media/{media[0]}"), ("val", f"media/{media[1]}"), ("test", f"media/{media[2]}")
    ]  # fmt: skip


def test_kinetics_sounds_reports_the_hash_of_its_list(tmp_path: Path) -> None:
    summary = counted("kinetics-sounds", tmp_path, {"ids_to_class.json": KINETICS, "classes.txt": "blowing nose\n"})
    assert summary["class_list"] == {
        "file": "classes.txt",
        "classes": 1,
        "sha256": "ca6dc464cac399b6257ba926d25618c6c67a07c3c95e334447f3006e4a379087",
    }
    assert summary["rows_of_other_classes"] == {"train": 1, "val": 0, "test": 0}


def test_kinetics_sounds_from_the_files_of_kinetics(tmp_path: Path) -> None:
    header = "label,youtube_id,time_start,time_end,split,is_cc\n"
    files = {"train.csv": f"{header}tap dancing,abcdefghijk,1,11,train,0\n", "classes.txt": "tap dancing\n"}
    assert counted("kinetics-sounds", tmp_path, files)["rows"] == {"train": 1}


def test_kinetics_sounds_refuses_a_class_without_a_row(tmp_path: Path) -> None:
    files = {"ids_to_class.json": KINETICS, "classes.txt": "blowing nose\njugling\n"}
    with pytest.raises(MirasolError, match="'jugling' of the list has no row of the split train, did you mean 'jugg"):
        counted("kinetics-sounds", tmp_path, files)


ORIGINAL = (
    "# Segments csv created Sun Mar  5 10:54:31 2017\n"
    "# num_ytids=1, num_segs=1, num_unique_labels=2, num_positive_labels=2\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
    '--4gqARaEJE, 30.000, 40.000, "/m/09x0r,/m/05zppz"\n'
)
MIRROR = '# YTID, start_seconds, end_seconds, positive_labels\n--4gqARaEJE,30,40,"/m/09x0r,/m/05zppz"\n'


@pytest.mark.parametrize("text", [ORIGINAL, MIRROR], ids=["original", "mirror"])
def test_audioset_reads_both_kinds_of_head(tmp_path: Path, text: str) -> None:
    files = {"eval_segments.csv": text, "class_labels_indices.csv": MIDS}
    (row,) = imported("audioset", tmp_path, files, ["Y--4gqARaEJE.wav"])
    assert (row.id, row.media, row.start, row.end) == ("--4gqARaEJE_30", "media/Y--4gqARaEJE.wav", None, None)
    assert row.answers == ("Speech; Male speech, man speaking", "Speech", "Male speech, man speaking")
    assert (row.task, row.prompt, row.split) == ("audio_class", AUDIO_PROMPT, "test")


def test_audioset_refuses_a_file_that_was_cut_off(tmp_path: Path) -> None:
    files = {"eval_segments.csv": ORIGINAL.replace("num_segs=1", "num_segs=2"), "class_labels_indices.csv": MIDS}
    with pytest.raises(MirasolError, match="its head says num_segs=2, but it has 1 rows"):
        counted("audioset", tmp_path, files)


def test_audioset_counts_every_label_of_a_clip(tmp_path: Path) -> None:
    summary = counted("audioset", tmp_path, {"eval_segments.csv": MIRROR, "class_labels_indices.csv": MIDS})
    assert summary["classes"] == {"distinct": 2, "counts": {"Male speech, man speaking": 1, "Speech": 1}}


def test_audiocaps(tmp_path: Path) -> None:
    text = 'audiocap_id,youtube_id,start_time,caption\n11542,3eJ9RynJzP8,80,"Wind blows, and insects sing"\n'
    (row,) = imported("audiocaps", tmp_path, {"test.csv": text}, ["3eJ9RynJzP8_80.wav"])
    assert (row.answers, row.task, row.prompt) == (("Wind blows, and insects sing",), "caption", CAPTION_PROMPT)
    assert (row.group, row.media) == ("3eJ9RynJzP8", "media/3eJ9RynJzP8_80.wav")


@pytest.mark.parametrize(
    "text",
    [
        'videoid,contentUrl,duration,page_dir,name\n21,http://x,PT0S,000001_000050,"A dog, running"\n',
        'caption,page_dir,id\n"A dog, running",000001_000050,21\n',
    ],
)
def test_webvid_columns_go_by_name(tmp_path: Path, text: str) -> None:
    (row,) = imported("webvid", tmp_path, {"results_2M_val.csv": text}, ["000001_000050/21.mp4"])
    assert (row.answers, row.media, row.split) == (("A dog, running",), "media/000001_000050/21.mp4", "val")


Q = {"answer": "b", "id": 1, "question": "who?", "video_id": 1}
EPIC_LATE = EPIC_ROW.replace("00:01:02.993", "late")
BAD: dict[str, tuple[dict[str, object], str]] = {
    "msrvtt-qa": (
        {"test_qa.json": [Q | {"video_id": "x", "category_id": 1}]},
        "test_qa.json[0]: video_id: expected a whole number, 0 or more, got 'x'",
    ),
    "msvd-qa": (
        {"test_qa.json": [Q, Q | {"answer": " "}]},
        "test_qa.json[1]: answer: expected a text, got ' '",
    ),
    "activitynet-qa": (
        {"val_q.json": [{"video_name": "a", "question": "b", "question_id": "v_a_1"}], "val_a.json": []},
        "val_q.json[0]: question_id: 'v_a_1' has no answer",
    ),
    "nextqa-mc": (
        {"val.csv": NEXT_MC + MC_ROW.replace(",3,6,", ",5,6,")},
        "val.csv:2: answer: expected the number of an option, 0 to 4, got 5",
    ),
    "nextqa-oe": (
        {"val.csv": NEXT_OE + "1,1,1,1,why,no,1,XX\n"},
        "val.csv:2: type: expected one of CW, CH,",
    ),
    "vggsound": (
        {"test.csv": "short_000300.mp4,rapping\n"},
        "test.csv:1: name: expected a name like YTID_000300.mp4",
    ),
    "epic-sounds": (
        {"EPIC_Sounds_validation.csv": f"{EPIC},description,class,class_id\n{EPIC_LATE}\n"},
        "EPIC_Sounds_validation.csv:2: stop_timestamp: expected seconds",
    ),
    "kinetics-sounds": (
        {"ids_to_class.json": KINETICS | {"val": {"a": 3.5}}},
        "ids_to_class.json[val][a]: label: expected a text, got 3.5",
    ),
    "audioset": (
        {"eval_segments.csv": MIRROR.replace("05zppz", "zzz"), "class_labels_indices.csv": MIDS},
        "eval_segments.csv:2: positive_labels: expected labels of class_labels_indices.csv, got '/m/zzz'",
    ),
    "audiocaps": (
        {"val.csv": "audiocap_id,youtube_id,start_time,caption\n1,a,-3,b\n"},
        "val.csv:2: start_time: expected a whole number",
    ),
    "webvid": (
        {"val.csv": "videoid,title\n1,b\n"},
        "val.csv:2: no column name or caption or text: there are videoid, title",
    ),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_bad_row_is_told_with_its_place_key_and_what_was_expected(tmp_path: Path, name: str) -> None:
    files, message = BAD[name]
    with pytest.raises(MirasolError) as error:
        counted(name, tmp_path, files)
    assert message in str(error.value)


MC_FILE = {"val.csv": NEXT_MC + MC_ROW}
SISTERS = {
    "msrvtt-qa": ({"val_qa.json": [Q]}, "no key 'category_id': rows of MSRVTT-QA have it"),
    "msvd-qa": ({"val_qa.json": [Q | {"category_id": 3}]}, "a key 'category_id': rows of MSRVTT-QA have it"),
    "nextqa-oe": (MC_FILE, "val.csv:2: a column 'a0': this is the file of multiple choice"),
    "nextqa-mc": ({"val.csv": NEXT_OE + "1,1,1,1,why,no,1,CW\n"}, "no column 'a0'"),
}


@pytest.mark.parametrize("name", SISTERS)
def test_files_of_the_set_that_looks_alike_are_refused(tmp_path: Path, name: str) -> None:
    """They have the same names and nearly the same rows: the score would be of another benchmark."""
    files, message = SISTERS[name]
    with pytest.raises(MirasolError) as error:
        counted(name, tmp_path, files)
    assert message in str(error.value)
