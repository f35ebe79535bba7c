"""The table of answers against single ones, and how far scores tell right from wrong and known from foreign questions.

    mirasol bench predict [--json FILE] [--rounds 1] [--quick] [--bundle build/bundle] [--data data] [--clips 1000]

`predict_equals_answer`: share of clips whose rows in the table of `mirasol predict` equal single answers: text, score,
margin and flags.
`auroc_right`: area under the ROC curve of an answer's score against whether it is right, over the questions of the
clips; the interval is by bootstrap over clips. The figures have it for the mean log-probability and the margin, too.
On the demo's own world nearly all answers are right: `--mute` asks about clips without their sound, which makes half of
them wrong. The claim is about the hard world: `mirasol world --hard`, a training, then this.
`auroc_foreign`: area under the ROC curve of the similarity to the nearest learnt prompt, for questions of the world in
other words and with other values against foreign ones (both below). The data's own wordings are similarity 1 and are
left out.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import RESAMPLES, arguments, exact, report, rounded

from mirasol.data.manifest import Example, clips_of, read_manifest
from mirasol.runtime.answers_table import Row, open_table
from mirasol.runtime.model import Model, load
from mirasol.runtime.predict import Asked, Loading, predict, row_of
from mirasol.runtime.questions import LEAST
from mirasol.runtime.sources.files import FileSource
from mirasol.tasks.scoring.normalise import exact_match

SPLIT, CLIPS, QUICK, PER_CLIP, WORKERS = "test", 1000, 4, 3, 2
# Questions of both worlds in other words, and with values that no training clip has.
PARAPHRASES = """which sound is heard first?|What sound is heard first?|which sound came first|what sound is heard?
What sound do you hear?|Which sound do you hear first?|which sound was first?|what color is the large one?
What colour is the small object?|which colour was the ring?|Which color was the ring|Describe the video.
describe this clip|Classify the clip.|Classify the audio.|Classify the video."""
DEMO = """Is the orange one large or small?|Is the purple one small or large?|is the red object large or small?
is the blue one big or small?|What colour is the one on the left?|What colour is at the bottom?
What is the colour of the large one?|what sound came after the whistle?|What sound came after the siren?
Which sound followed the bell?|What sound came with the orange flash?|which sound came with the red flash?
Which color flashed with the bell?|which colour flashed with the siren?|which colour was the first to flash?
How many beeps do you hear?|how many bells are heard?|Does the sound rise or fall?|Is the tone rising or falling?
Which sound is heard in the last quarter?|Which way does the red one move?|which direction does the small one move?"""
HARD = """which colour was first?|Which color came second?|which sound was the last?|Which sound came fourth?
Which colour came before red?|Which colour came after grey?|which sound came before the hum?
Which sound followed the hum?|Which colour came with the whistle?|Which sound came with grey?
Which sound came together with green?|How many objects do you see?|how many things are seen?
How many sounds do you hear?|how many objects are there?|Which colour is the ring?"""
FOREIGN = """Is there a dog?|What is happening?|what happens?|Who is speaking?|Is it raining?|What is the man doing?
How many people are in the room?|Where was this filmed?|What time is it?|Is the drone flying?|What digit is spoken?
Which instrument is being played?|What is the weather like?|Does the woman smile?|Is the car moving fast?
What is written on the sign?|Who won the game?|Why is the child crying?|What language do they speak?
Is this a bird or a plane?|Is there music?|What is the person wearing?|Can you hear a helicopter?|What animal is this?
Translate this into French.|What is the capital of France?|Tell me a joke.|Summarise the meeting.|Is anybody in danger?
How old is the boy?|What brand is the laptop?|Is the door open?|Which team scores?|What did he say at the end?
Is the engine broken?|hello|yes|Was ist zu sehen?|Quel son entend-on ?|Is the machine faulty?|How fast does the car go?
Are there any pedestrians on the crossing?|Is it day or night?|How tall is the building?|Is the dog large or small?
What colour is the car?|What colour is her shirt?|How many dogs are seen?|Which way does the car turn?"""


def lines(*texts: str) -> list[str]:
    """The questions in ``texts``."""
    return [one.strip() for text in texts for line in text.splitlines() for one in line.split("|")]


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Area under the ROC curve: the chance that a positive exceeds a negative, ties half."""
    if not len(positive) or not len(negative):
        return math.nan
    low = np.sort(np.asarray(negative, np.float64))
    below, upto = (np.searchsorted(low, positive, side=side) for side in ("left", "right"))
    return float(((below + upto) / 2).mean() / len(low))


def measured(groups: Sequence[tuple[list[float], list[float]]]) -> dict[str, Any]:
    """:func:`auroc` of the pooled (positives, negatives) of each group, with its interval by bootstrap over groups."""

    def of(drawn: Sequence[tuple[list[float], list[float]]]) -> float:
        return auroc([v for one, _ in drawn for v in one], [v for _, one in drawn for v in one])

    draw = random.Random(0)
    values = sorted(v for _ in range(RESAMPLES // 10) if not math.isnan(v := of(draw.choices(groups, k=len(groups)))))
    if not values:
        return exact(0.0)
    low, high = values[int(0.025 * len(values))], values[int(0.975 * len(values)) - 1]
    return {"value": rounded(of(groups)), "ci95": [rounded(low), rounded(high)], "rounds": len(groups)}


def right_or_wrong(model: Model, file: Path, examples: Sequence[Example], mute: bool) -> list[dict[str, Any]]:
    """Score, mean log-probability and margin of the answers about one clip, and whether each is right."""
    source = FileSource(file, model.engine.contract.clip)
    session = model.session(source.chunk_seconds)
    for chunk in source:
        session.push(chunk.video, None if mute else chunk.samples)
    found = []
    for example in examples:
        answer = session.ask(example.prompt)
        tokens = len(model.engine.tokenizer.encode(answer.text)) + answer.complete
        figures = {"score": answer.score, "mean_log": math.log(max(answer.score, 1e-300)) / max(tokens, 1)}
        found.append(figures | {"margin": answer.margin, "right": exact_match(answer.text, example.answers)})
    return found


def table_equals(model: Model, bundle: str, data: Path, asked: list[tuple[str, list[str]]]) -> list[bool]:
    """Whether the rows of each clip in the table equal its single answers."""
    tasks = [Asked(media, str(data / media), tuple(dict.fromkeys(prompts))) for media, prompts in asked]
    with tempfile.TemporaryDirectory() as name:
        out = Path(name, "answers.csv")
        predict(tasks, out, Loading(bundle), workers=WORKERS)
        with open_table(out, model.engine.contract.sha256) as table:
            rows: dict[str, list[Row]] = {}
            for row in table.rows:
                rows.setdefault(row.file, []).append(row)
    return [
        rows[task.name] == [row_of(task.name, prompt, model.answer(task.path, prompt)) for prompt in task.questions]
        for task in tasks
    ]


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--bundle", default="build/bundle", help="a bundle, or release:NAME")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the world's folder, of the same variant")
    parser.add_argument("--clips", type=int, default=CLIPS, help="clips of the split test")
    parser.add_argument("--mute", action="store_true", help="take the sound away, where nearly all answers are right")
    options = parser.parse_args()
    if not (Path(options.bundle).is_dir() or options.bundle.startswith("release:")) or not options.data.is_dir():
        why = f"needs a trained bundle ({options.bundle}) and the data of its world ({options.data}): run `make demo`"
        print(why)
        report("predict", options.json, {}, {"skipped": why})
        return
    model = load(options.bundle, threads=1)
    examples = [e for e in read_manifest(options.data / "manifest.jsonl") if e.split == SPLIT and e.task == "qa"]
    clips = clips_of(examples)[: QUICK if options.quick else options.clips]
    draw = random.Random(0)
    chosen = [(clip.media, draw.sample(clip.examples, min(PER_CLIP, len(clip.examples)))) for clip in clips]

    answers = [right_or_wrong(model, options.data / media, some, options.mute) for media, some in chosen]
    groups = {
        kind: [([a[kind] for a in clip if a["right"]], [a[kind] for a in clip if not a["right"]]) for clip in answers]
        for kind in ("score", "mean_log", "margin")
    }
    asked = [(media, [example.prompt for example in some[:1]]) for media, some in chosen]
    equal = table_equals(model, options.bundle, options.data, asked)

    learnt = {example.prompt for example in examples}
    hard = any("came second" in prompt for prompt in learnt)
    near = [question for question in lines(PARAPHRASES, HARD if hard else DEMO) if question not in learnt]
    similar = {
        name: [model.engine.nearest_prompt(question)[0] or 0.0 for question in questions]
        for name, questions in (("known", near), ("foreign", lines(FOREIGN)))
    }
    pairs = [([one], []) for one in similar["known"]] + [([], [one]) for one in similar["foreign"]]
    ratios = {
        "auroc_right": measured(groups["score"]),
        "auroc_foreign": measured(pairs),
        "predict_equals_answer": exact(sum(equal) / len(equal)),
    }
    flat = [a for clip in answers for a in clip]
    figures = {
        "clips": len(clips),
        "answers": len(flat),
        "muted": options.mute,
        "right": rounded(sum(a["right"] for a in flat) / len(flat)),
        "auroc_right_by": {kind: measured(groups[kind])["value"] for kind in groups},
        "prompts": len(model.engine.contract.prompts or ()),
        "known_marked_known": rounded(float(np.mean(np.array(similar["known"]) >= LEAST))),
        "foreign_marked_foreign": rounded(float(np.mean(np.array(similar["foreign"]) < LEAST))),
    }
    print(figures)
    report("predict", options.json, ratios, figures)


if __name__ == "__main__":
    main()
