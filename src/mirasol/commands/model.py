"""`mirasol model`: what a params file makes of the presets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Look at the model that params.yaml asks for.")


@app.command()
def show(
    file: Annotated[Path, typer.Option(help="the params file")] = Path("params.yaml"),
    preset: Annotated[str | None, typer.Option(help="another preset: demo, small or base")] = None,
) -> None:
    """Print the parameters part by part, without allocating them.

    Example:  mirasol model show --preset base
    """
    import dataclasses

    import torch

    from mirasol.commands.say import table
    from mirasol.core.errors import MirasolError
    from mirasol.model.config import PRESETS
    from mirasol.model.mirasol import Mirasol
    from mirasol.model.presets import build_config
    from mirasol.params.load import load_params

    params = load_params(file)
    if preset is not None and preset not in PRESETS:
        raise MirasolError(f"unknown preset `{preset}`: expected one of {', '.join(PRESETS)}")
    config = build_config(
        dataclasses.replace(params.model, preset=preset or params.model.preset),
        size=params.clip.size,
        frames_per_chunk=params.clip.frames_per_chunk,
        mels=params.clip.mels,
        audio_columns=params.clip.audio_columns,
        vocabulary=params.tokenizer.vocabulary,
        max_text=params.tokenizer.max_text,
    )
    try:
        with torch.device("meta"):
            model = Mirasol(config)
    except ValueError as error:
        raise MirasolError(f"{file}: the sections clip and model do not fit together: {error}") from error
    parts = [(name, sum(p.numel() for p in part.parameters())) for name, part in model.named_children()]
    rows = [(name, f"{count:,}") for name, count in parts]
    table([("part", "parameters"), *rows, ("all", f"{sum(p.numel() for p in model.parameters()):,}")], right=(1,))
