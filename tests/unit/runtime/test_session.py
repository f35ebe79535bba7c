"""A session is one stream: it remembers, is bounded, and shares nothing with another."""

from __future__ import annotations

import dataclasses
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.bundle import CLIP, MAX_ANSWER, MAX_CHUNKS, QUESTION, ended_by, random_chunk, tiny_bundle

from mirasol.core.errors import MirasolError
from mirasol.runtime.engine import Engine
from mirasol.runtime.questions import LearntPrompts
from mirasol.runtime.session import Session

COMBINERS = ("transformer", "ttm")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny_bundle(), threads=1)


def pushed(engine: Engine, chunks: int, seed: int = 0) -> Session:
    session = Session(engine)
    for i in range(chunks):
        session.push(*random_chunk(seed + i))
    return session


def test_latents_have_the_shape_of_the_contract(engine: Engine) -> None:
    latents = Session(engine).push(*random_chunk(0))
    assert latents.x.shape == latents.h.shape == (engine.contract.model.combined, engine.contract.model.width)


def test_the_past_changes_the_present(engine: Engine) -> None:
    first, second = pushed(engine, 2), Session(engine)
    again = first.push(*random_chunk(9)).h
    assert not np.allclose(again, second.push(*random_chunk(9)).h)


@pytest.mark.parametrize("combiner", COMBINERS)
def test_a_restored_session_goes_on_bit_for_bit(combiner: str) -> None:
    engine = Engine(tiny_bundle(combiner), threads=1)
    session = pushed(engine, 3)
    snapshot = session.snapshot()
    expected = [session.push(*random_chunk(i)).h for i in (7, 8)]
    other = Session(engine)
    other.restore(snapshot)
    assert np.array_equal(expected, [other.push(*random_chunk(i)).h for i in (7, 8)])
    assert other.ask(QUESTION) == session.ask(QUESTION)


def test_a_snapshot_survives_a_file(engine: Engine, tmp_path) -> None:
    session = pushed(engine, 2)
    np.savez(tmp_path / "state.npz", **session.snapshot())
    other = Session(engine)
    with np.load(tmp_path / "state.npz", allow_pickle=False) as archive:
        other.restore(dict(archive))
    assert np.array_equal(other.push(*random_chunk(5)).h, session.push(*random_chunk(5)).h)


def test_a_snapshot_of_another_bundle_is_refused(engine: Engine) -> None:
    snapshot = Session(Engine(tiny_bundle("ttm"))).snapshot()
    with pytest.raises(MirasolError, match="not taken over the bundle"):
        Session(engine).restore(snapshot)


def test_an_incomplete_snapshot_is_refused_and_changes_nothing(engine: Engine) -> None:
    session = pushed(engine, 2)
    before = session.snapshot()
    broken = {name: array for name, array in before.items() if name != "memory"}
    with pytest.raises(MirasolError, match="snapshot's memory is missing"):
        session.restore(broken)
    assert all(np.array_equal(array, before[name]) for name, array in session.snapshot().items())


def test_reset_begins_anew(engine: Engine) -> None:
    session = pushed(engine, 3)
    session.reset()
    assert session.chunks == 0
    assert np.array_equal(session.push(*random_chunk(1)).h, pushed(engine, 0).push(*random_chunk(1)).h)


def test_sessions_over_one_engine_do_not_mix(engine: Engine) -> None:
    alone = [pushed(engine, 4, seed) for seed in (0, 50)]
    together = [Session(engine), Session(engine)]
    for i in range(4):
        for session, seed in zip(together, (0, 50), strict=True):
            session.push(*random_chunk(seed + i))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.snapshot()["memory"], other.snapshot()["memory"])


def test_memory_does_not_grow_and_forgets_the_oldest(engine: Engine) -> None:
    session = pushed(engine, MAX_CHUNKS)
    size, memory = session.state_bytes, session.memory[0].copy()
    assert session.memory[1].all()
    session.push(*random_chunk(99))
    combined = engine.contract.model.combined
    assert session.state_bytes == size
    assert np.array_equal(session.memory[0][:, :-combined], memory[:, combined:])


def test_a_chunk_that_held_nothing_keeps_its_place_and_is_not_looked_at(engine: Engine) -> None:
    session = pushed(engine, 1)
    session.push(None, None)
    combined = engine.contract.model.combined
    assert session.memory[1][0, -2 * combined :].tolist() == [True] * combined + [False] * combined


@pytest.mark.parametrize("video", [True, False])
def test_what_is_missing_does_not_matter(engine: Engine, video: bool) -> None:
    frames, samples = random_chunk(0)
    one, other = Session(engine), Session(engine)
    a = one.push_features(one._features.push(frames if video else None, None if video else samples))
    inputs = other._features.push(frames, samples)
    b = other.push_features(type(inputs)(inputs.video, inputs.audio, video_present=video, audio_present=not video))
    assert np.allclose(a.h, b.h, atol=1e-6)


def test_an_answer_can_be_asked_for_at_any_time_and_does_not_change_the_stream(engine: Engine) -> None:
    session = pushed(engine, 2)
    before = session.snapshot()
    answers = {session.ask(QUESTION) for _ in range(3)}
    assert len(answers) == 1
    assert all(np.array_equal(array, before[name]) for name, array in session.snapshot().items())


def test_an_answer_in_pieces_is_the_answer(engine: Engine) -> None:
    session = pushed(engine, 2)
    assert "".join(session.ask_stream(QUESTION)) == str(session.ask(QUESTION))


def pieces_of(session: Session, question: str) -> tuple[str, bool]:
    """An answer, and whether the model has ended it."""
    pieces, said = session.ask_stream(question), ""
    while True:
        try:
            said += next(pieces)
        except StopIteration as end:
            return said, end.value.complete


def test_an_answer_in_pieces_tells_whether_the_model_has_ended_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    question, said = "red bell", "bell bell bell bell"  # to the model's longest answer
    assert pieces_of(pushed(engine, 2), question) == (said, False)
    monkeypatch.setattr(engine, "contract", ended_by(engine, "bell"))
    assert pieces_of(pushed(engine, 2), question) == ("", True)


def test_the_score_is_the_product_of_the_tokens_probabilities(engine: Engine) -> None:
    session = pushed(engine, 2)
    shares = []
    for token, logits in session._tokens(QUESTION, None):
        each = np.exp(np.float64(logits)) / np.exp(np.float64(logits)).sum()
        shares.append((each[token], each[token] - np.sort(each)[-2]))
    answer = session.ask(QUESTION)
    assert answer.score == pytest.approx(np.prod([share for share, _ in shares]))
    assert answer.margin == pytest.approx(min(margin for _, margin in shares))


def test_an_answer_says_which_modality_was_missing_and_how_much_is_remembered(engine: Engine) -> None:
    session, (frames, samples) = Session(engine), random_chunk(0)
    session.push(frames, None)
    names = lambda: [flag.name for flag in session.ask(QUESTION).flags]  # noqa: E731
    assert names() == ["no sound", "cut"]
    session.push(None, samples)
    assert names() == ["cut"]
    for _ in range(MAX_CHUNKS):
        session.push(None, samples)
    assert names() == ["no picture", "memory", "cut"]
    remark = {flag.name: flag.text for flag in session.ask(QUESTION).flags}["memory"]
    assert remark == "only the last 2.5 s of 3.5 s are remembered"
    assert session.ask(QUESTION).seconds_used == 2.5


def test_a_question_unlike_those_of_training_is_marked(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    session = pushed(engine, 1)
    assert session.ask(QUESTION).known is None
    monkeypatch.setattr(engine, "_learnt", LearntPrompts([QUESTION]))
    assert session.ask(QUESTION).known is True
    answer = session.ask("is it red")
    assert (answer.known, answer.flags[0].name) == (False, "foreign question")


def test_answers_are_as_long_as_they_may_be_and_no_longer(engine: Engine) -> None:
    session = pushed(engine, 2)
    assert len(list(session.answer_ids(QUESTION))) <= MAX_ANSWER
    assert len(list(session.answer_ids(QUESTION, 1))) <= 1


def test_a_question_longer_than_the_text_cache(engine: Engine) -> None:
    with pytest.raises(MirasolError, match="the question has 22 tokens, but the text cache holds 12"):
        pushed(engine, 1).ask("red " * 20)


def test_nothing_to_ask_about(engine: Engine) -> None:
    with pytest.raises(MirasolError, match="nothing to ask about"):
        Session(engine).ask(QUESTION)


def chunk_with(**changes: object) -> tuple[object, object]:
    frames, samples = random_chunk(0)
    return changes.get("frames", frames), changes.get("samples", samples)


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (chunk_with(frames=np.zeros((4, 24, 32), np.uint8)), r"expected uint8 \(4, 24, 16\), got uint8 \(4, 24, 32\)"),
        (chunk_with(frames=np.zeros((4, 24, 16), np.float32)), "got float32"),
        (chunk_with(samples=np.zeros(3999, np.float32)), r"expected float32 \(4000,\), got float32 \(3999,\)"),
        (chunk_with(samples=np.zeros(4000)), "got float64"),
        (chunk_with(samples=np.full(4000, np.nan, np.float32)), "not finite"),
    ],
)
def test_a_wrong_chunk_is_refused_and_changes_nothing(engine: Engine, chunk: tuple, message: str) -> None:
    session = pushed(engine, 2)
    before = session.snapshot()
    with pytest.raises(ValueError, match=message):
        session.push(*chunk)
    assert all(np.array_equal(array, before[name]) for name, array in session.snapshot().items())


@pytest.mark.filterwarnings("ignore:.*(overflow|invalid value):RuntimeWarning")
@pytest.mark.parametrize("name", ["samples", "audio"])
def test_a_chunk_that_no_number_can_hold_is_refused_and_changes_nothing(engine: Engine, name: str) -> None:
    session = pushed(engine, 2)
    before = session.snapshot()
    good = Session(engine)._features.push(*random_chunk(0))
    with pytest.raises(MirasolError, match=r"chunk 2 .* not finite"):
        if name == "samples":
            session.push(None, np.full(4000, 3e38, np.float32))
        else:
            session.push_features(dataclasses.replace(good, audio=np.full_like(good.audio, 3e38)))
    assert all(np.array_equal(array, before[name]) for name, array in session.snapshot().items())


def test_a_session_opens_a_bundle_by_its_folder() -> None:
    assert Session(tiny_bundle()).contract.clip == CLIP


@pytest.mark.parametrize("combiner", COMBINERS)
def test_threads_over_one_engine_do_not_change_anybody_s_answer(combiner: str) -> None:
    engine, streams, chunks = Engine(tiny_bundle(combiner), threads=1), 16, MAX_CHUNKS + 2

    def run(seed: int) -> tuple[list[str], np.ndarray]:
        session, answers = Session(engine), []
        for i in range(chunks):
            session.push(*random_chunk(1000 * seed + i))
            answers.append(session.ask(QUESTION))
        return answers, session.memory[0]

    alone = [run(seed) for seed in range(streams)]
    with ThreadPoolExecutor(streams) as pool:
        together = list(pool.map(run, range(streams)))
    for (answers, memory), (expected, expected_memory) in zip(together, alone, strict=True):
        assert answers == expected
        assert np.array_equal(memory, expected_memory)
    assert len({memory.tobytes() for _, memory in alone}) == streams


def test_a_chunk_pushed_while_an_answer_is_being_said_does_not_change_it(engine: Engine) -> None:
    session = pushed(engine, 2)
    expected = list(session.answer_ids(QUESTION))
    answer = session.answer_ids(QUESTION)
    found = [next(answer)]
    for i in range(MAX_CHUNKS):
        session.push(*random_chunk(70 + i))
    assert [*found, *answer] == expected


def test_two_answers_at_once_do_not_mix(engine: Engine) -> None:
    session = pushed(engine, 3)
    questions = (QUESTION, "is it red")
    expected = [list(session.answer_ids(question)) for question in questions]
    first, second = (session.answer_ids(question) for question in questions)
    found = [list(ids) for ids in zip(*itertools.zip_longest(first, second, fillvalue=-1), strict=True)]
    assert [[i for i in ids if i != -1] for ids in found] == expected


def test_pushes_from_several_threads_are_all_taken_in(engine: Engine) -> None:
    session = Session(engine)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: session.push(*random_chunk(seed)), range(32)))
    assert session.chunks == 32
    assert np.isfinite(session.memory[0]).all()


@pytest.mark.parametrize("name", ["x", "h"])
def test_latents_stay_what_they_were(engine: Engine, name: str) -> None:
    session = Session(engine)
    latents = getattr(session.push(*random_chunk(0)), name)
    before = latents.copy()
    for i in range(3):
        session.push(*random_chunk(1 + i))
    assert np.array_equal(latents, before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video": np.zeros((1, 5, 24, 16), np.uint8)}, r"video: expected uint8 \(1, 4, 24, 16\), got uint8 \(1, 5,"),
        ({"audio": np.zeros((1, 1, 1), np.float32)}, r"audio: expected float32 .* got float32 \(1, 1, 1\)"),
        ({"audio": np.zeros((1, 8, 8), np.float64)}, "got float64"),
        ({"audio": np.full((1, 8, 8), np.nan, np.float32)}, "audio: some features are not finite"),
    ],
)
def test_wrong_features_are_refused_and_change_nothing(engine: Engine, changes: dict, message: str) -> None:
    session = pushed(engine, 2)
    before = session.snapshot()
    good = Session(engine)._features.push(*random_chunk(0))
    with pytest.raises(ValueError, match=message):
        session.push_features(dataclasses.replace(good, **changes))
    assert all(np.array_equal(array, before[name]) for name, array in session.snapshot().items())


@pytest.mark.parametrize("name", ["memory", "features/past"])
def test_a_snapshot_that_is_not_finite_is_refused_and_changes_nothing(engine: Engine, name: str) -> None:
    session = pushed(engine, 2)
    before = session.snapshot()
    damaged = {**before, name: np.full_like(before[name], np.nan)}
    with pytest.raises(MirasolError, match=f"snapshot's {name} is damaged"):
        session.restore(damaged)
    assert all(np.array_equal(array, before[name]) for name, array in session.snapshot().items())


@pytest.mark.parametrize("name", ["chunks", "features/index"])
@pytest.mark.parametrize("count", [-1, 2**62, 2**63 - 1])
def test_a_snapshot_that_counts_wrong_is_refused_and_changes_nothing(engine: Engine, name: str, count: int) -> None:
    session = pushed(engine, 2)
    before = session.snapshot()
    with pytest.raises(MirasolError, match=f"snapshot's {name} is damaged"):
        session.restore({**before, name: np.array(count)})
    assert all(np.array_equal(array, before[name]) for name, array in session.snapshot().items())


def test_a_snapshot_is_a_copy(engine: Engine) -> None:
    session = pushed(engine, 2)
    snapshot = session.snapshot()
    kept = {name: array.copy() for name, array in snapshot.items()}
    for i in range(MAX_CHUNKS + 1):
        session.push(*random_chunk(40 + i))
    assert all(np.array_equal(array, kept[name]) for name, array in snapshot.items())
