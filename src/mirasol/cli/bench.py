"""`mirasol bench`: two things timed in turn, as a ratio with its spread."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mirasol.core.errors import MirasolError

FOLDER = Path("benchmarks")
BENCHMARKS = {  # files of that folder, outside the package
    "attention": "the chunk loop against the dense mask on a CPU, forward and backward",
    "cluster": "training on several nodes: faults survived, seconds to stop, what a save holds up",
    "combiner": "the Token Turing Machine against the transformer combiner",
    "decode": "a random chunk of a shard against a clip with few key frames",
    "dvc_layout": "what many media files cost DVC, by how they are kept",
    "export": "a bundle against torch: equal over 1,000 chained steps, and faster than the eager steps",
    "evaluate": "answering and scoring questions in batches, against plain loops of full forwards",
    "gpu_check": "all that needs a GPU, in eight minutes: kernels, waiting, compilation, speed and memory",
    "label": "labels needed with unsure clips first, against clips at random",
    "large": "the export of a large preset: disk, memory and time over its weights",
    "load": "loading shards against decoding alone",
    "own": "own data with proposed settings against the majority answer and a linear model",
    "peer": "this model against mirasol-pytorch, where that is installed",
    "predict": "the table of answers against single ones, and how far scores tell right from wrong, known from foreign",
    "scale": "the costs of a clip, a process and a checkpoint at the size of `base`, for docs/scale.md",
    "seeds": "the accuracy of the whole training over seeds, mean and worst",
    "shards": "sharding against ffmpeg, two workers against one, copying, and bytes against JPEG",
    "start": "what a process needs before its first step on a set of many clips: the first on a machine, and others",
    "stream": "a bundle on a film, decoding included: real time, evenness, memory, sixteen streams",
    "train": "the trainer's step: MFU and memory on a GPU, elsewhere its share of the matmul rate and its cuts",
    "try": "a fresh clone to its first answer by `make try`: seconds, and megabytes of clone and environment",
    "training_loop": "training in Lightning, with curves and checks, against a bare loop",
}

app = typer.Typer(no_args_is_help=True, help="Time two things in turn: a ratio with its spread.")


def _add(name: str, about: str) -> None:
    """A command that runs a file of the project's benchmarks and passes it unknown options, ``--help`` included."""

    @app.command(
        name,
        add_help_option=False,
        help=f"Measure {about}.\n\nExample:  mirasol bench {name} --json runs/{name}.json",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def run(
        context: typer.Context,
        json: Annotated[Path | None, typer.Option(help="write the figures to this file")] = None,
        rounds: Annotated[int | None, typer.Option(min=1, help="how often each thing is timed, in turn")] = None,
        quick: Annotated[bool, typer.Option("--quick", help="small sizes: to see that it runs")] = False,
    ) -> None:
        file = FOLDER / f"{name}.py"
        if not file.is_file():
            raise MirasolError(f"{file} is not here: run in the project's folder (the one with params.yaml)")
        options = [*(["--json", str(json)] if json else ()), *(["--rounds", str(rounds)] if rounds else ())]
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # remarks of the profiler that counts memory
        arguments = [str(file), *options, *(["--quick"] if quick else ()), *context.args]
        os.execv(sys.executable, [sys.executable, *arguments])


for _name, _about in BENCHMARKS.items():
    _add(_name, _about)
