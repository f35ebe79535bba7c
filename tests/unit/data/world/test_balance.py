"""No shortcut: words alone give chance, and one modality alone gives what families.json says.

Guessers learn tables of counts on the training split and answer the test split. They know the whole truth
of one modality, cut into contexts, each with a table. If an answer depended on any context, its table would beat the
declared figure.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable

import pytest

from mirasol.data.world.questions import FAMILIES, Text, texts
from mirasol.data.world.scene import COLOURS, Scene, sample_clip

TRAIN, TEST = 12000, 6000
Asked = tuple[Scene, Text]
Contexts = Callable[[Scene, Text], Iterable[Hashable]]


@pytest.fixture(scope="module")
def train() -> dict[str, list[Asked]]:
    return by_family("train", TRAIN)


@pytest.fixture(scope="module")
def test() -> dict[str, list[Asked]]:
    return by_family("test", TEST)


def by_family(split: str, clips: int) -> dict[str, list[Asked]]:
    found: dict[str, list[Asked]] = defaultdict(list)
    for i in range(clips):
        scene = sample_clip(1, split, i)
        for text in texts(scene):
            if text.task == "qa":
                found[text.family].append((scene, text))
    return found


def margin(rate: float, rows: list[Asked]) -> float:
    """Four standard errors over clips, whose questions may all be right or wrong together."""
    return 4 * math.sqrt(rate * (1 - rate) / len({s.index for s, _ in rows}))


def accuracies(train: list[Asked], test: list[Asked], contexts: Contexts, role: Callable[[Scene, Text], str]) -> list:
    """The accuracy on ``test`` of one table of counts per context."""
    tables: dict[int, dict[Hashable, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for scene, text in train:
        for number, context in enumerate(contexts(scene, text)):
            tables[number][context][role(scene, text)] += 1
    right: Counter[int] = Counter()
    for scene, text in test:
        for number, context in enumerate(contexts(scene, text)):
            guess = tables[number][context].most_common(1)
            right[number] += bool(guess) and guess[0][0] == role(scene, text)
    return [right[number] / len(test) for number in tables]


def plain(scene: Scene, text: Text) -> str:
    return text.answer


def wording(scene: Scene, text: Text) -> list[Hashable]:
    return [text.prompt, text.family]


def seen(scene: Scene, text: Text) -> list[Hashable]:
    """What the picture tells: each tuple is a context."""
    p = text.prompt
    chunks = tuple(t.flash_chunk for t in scene.flashes)
    return [
        p,
        (p, chunks),
        (p, tuple(t.flash for t in scene.flashes)),
        (p, tuple(t.size for t in scene.flashes), scene.ring is None),
        (p, scene.large.flash_chunk, scene.small.flash_chunk),
        (p, scene.large.colour, scene.small.colour),
        (p, scene.large.motion, scene.small.motion, scene.large.place),
        (p, scene.large.verb, scene.small.verb, len(chunks)),
        (p, scene.large.shape, scene.small.shape, scene.background),
        (p, scene.ring, tuple(t.colour for t in scene.flashes)),
    ]


def heard(scene: Scene, text: Text) -> list[Hashable]:
    """What the sound tells: each tuple is a context."""
    p = text.prompt
    names, chunks = tuple(s.name for s in scene.sounds), tuple(s.chunk for s in scene.sounds)
    return [
        p,
        (p, chunks, scene.has_audio),
        (p, names),
        (p, tuple(sorted(names))),
        (p, names[:1], len(names)),
        (p, tuple(s.start // 1000 for s in scene.sounds)),
        (p, tuple(s.loudness > 200 for s in scene.sounds)),
    ]


def seen_role(scene: Scene, text: Text) -> str:
    """The answer as one who sees would point at it: which of the flashes, the colour that is known."""
    if text.family == "flash_of_sound":
        return str([t.colour for t in scene.flashes].index(text.answer))
    return text.answer.split()[-1] if text.family == "classify" else text.answer


def flash_size(scene: Scene, text: Text) -> str:
    return next(t.size for t in scene.things if t.colour == text.answer)


def heard_role(scene: Scene, text: Text) -> str:
    """The answer as one who hears would point at it: which of the sounds, the first sound that is known."""
    if text.family == "sound_of_flash":
        return str([s.name for s in scene.sounds].index(text.answer))
    return text.answer.split()[0] if text.family == "classify" else text.answer


@pytest.mark.parametrize("family", FAMILIES)
def test_words_alone_give_chance(family: str, train: dict[str, list[Asked]], test: dict[str, list[Asked]]) -> None:
    chance = FAMILIES[family].chance
    for accuracy in accuracies(train[family], test[family], wording, plain):
        assert abs(accuracy - chance) <= margin(chance, test[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_single_words_of_a_question_give_chance(
    family: str, train: dict[str, list[Asked]], test: dict[str, list[Asked]]
) -> None:
    """Naive Bayes over the words of the prompt."""
    prior: Counter[str] = Counter()
    seen_with: dict[str, Counter[str]] = defaultdict(Counter)
    for _, text in train[family]:
        prior[text.answer] += 1
        for word in text.prompt.split():
            seen_with[text.answer][word] += 1

    def guess(prompt: str) -> str:
        def score(answer: str) -> float:
            return math.log(prior[answer]) + sum(
                math.log((seen_with[answer][w] + 1) / (prior[answer] + 2)) for w in prompt.split()
            )

        return max(prior, key=score)

    guesses = {prompt: guess(prompt) for prompt in {t.prompt for _, t in test[family]}}
    accuracy = sum(guesses[t.prompt] == t.answer for _, t in test[family]) / len(test[family])
    chance = FAMILIES[family].chance
    assert abs(accuracy - chance) <= margin(chance, test[family])


@pytest.mark.parametrize("family", [f for f in FAMILIES if FAMILIES[f].muted < 1])
def test_who_only_sees_gets_the_muted_figure(
    family: str, train: dict[str, list[Asked]], test: dict[str, list[Asked]]
) -> None:
    figure, slack = FAMILIES[family].muted, margin(FAMILIES[family].muted, test[family])
    roles = [seen_role] + ([flash_size] if family == "flash_of_sound" else [])
    best = max(max(accuracies(train[family], test[family], seen, role)) for role in roles)
    assert figure - slack <= best <= figure + slack


@pytest.mark.parametrize("family", [f for f in FAMILIES if FAMILIES[f].blanked < 1])
def test_who_only_hears_gets_the_blanked_figure(
    family: str, train: dict[str, list[Asked]], test: dict[str, list[Asked]]
) -> None:
    figure, slack = FAMILIES[family].blanked, margin(FAMILIES[family].blanked, test[family])
    best = max(accuracies(train[family], test[family], heard, heard_role))
    assert figure - slack <= best <= figure + slack


@pytest.mark.parametrize("family", [f for f in FAMILIES if "video" not in FAMILIES[f].needs])
def test_what_needs_sound_alone_is_answered_by_who_hears(family: str) -> None:
    assert FAMILIES[family].blanked == 1.0
    assert FAMILIES[family].muted == FAMILIES[family].chance


@pytest.mark.parametrize("novel", [False, True])
def test_the_held_out_pairs_rule_out_no_answer(novel: bool, test: dict[str, list[Asked]]) -> None:
    """Each colour is right equally often among the clips with pairs never seen in training, and among the others."""
    for family in ("colour", "flash_of_sound", "gone"):
        answers = Counter(text.answer for scene, text in test[family] if scene.novel == novel)
        total = sum(answers.values())
        assert set(answers) == set(COLOURS)
        assert max(answers.values()) / total < 1 / 6 + 5 * math.sqrt(5 / 36 / total)
