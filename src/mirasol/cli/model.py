"""`mirasol model`: sizes and costs of the presets, next to the paper's figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirasol.cli.console import Json, print_json, table

if TYPE_CHECKING:
    from mirasol.model.config import ModelConfig
    from mirasol.model.mirasol import Mirasol

app = typer.Typer(no_args_is_help=True, help="Look at the model: parameters, tokens, operations, memory.")

UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


@app.command()
def show(
    preset: Annotated[str | None, typer.Argument(help="demo, small or base; default: that of params.yaml")] = None,
    file: Annotated[Path, typer.Option(help="the params file")] = Path("params.yaml"),
    frames: Annotated[int | None, typer.Option(help="frames of a clip; the number of chunks stays")] = None,
    size: Annotated[int | None, typer.Option(help="side of a frame in pixels")] = None,
    combiner: Annotated[str | None, typer.Option(help="another combiner")] = None,
    as_json: Json = False,
) -> None:
    """Print parameters by part next to the paper's, tokens, operations and memory.

    Allocates nothing. `small` and `base` have the paper's inputs (128 frames of 224 pixels in 16 chunks), `demo` those
    of the params file.

    Example:  mirasol model show base --frames 512
    """
    import torch

    from mirasol.core.errors import MirasolError
    from mirasol.model.mirasol import Mirasol

    try:
        name, chunks, config = _config(preset, file, frames, size, combiner)
        if config.size % (2 * config.reconstruction_size):
            expected = f"a multiple of {2 * config.reconstruction_size}, twice the side of the picture reconstructed"
            raise ValueError(f"frames of {config.size} pixels, expected {expected}")
        with torch.device("meta"):
            model = Mirasol(config)
    except ValueError as error:
        raise MirasolError(f"no such model: {error}") from error
    if as_json:
        print_json(_figures(name, chunks, model))
        return
    print(
        f"{name}: {chunks} chunks of {config.frames_per_chunk} frames of {config.size} x {config.size} and "
        f"{config.audio_columns} x {config.mels} log-mel, combiner {config.combiner}, m = {config.combined}\n"
    )
    _print_parameters(name, model)
    _print_tokens(config)
    _print_operations(config, chunks)
    _print_state(model)


def _figures(preset: str, chunks: int, model: Mirasol) -> dict[str, Any]:
    """The figures of `mirasol model show --json`: counts, FLOPs of a clip with one longest text, bytes of a stream."""
    import dataclasses

    import torch

    from mirasol.model.sizes.accounting import (
        chunk_tokens,
        forward_flops,
        parameter_counts,
        state_bytes,
        training_flops,
    )
    from mirasol.model.sizes.paper import paper_figures

    config, text = model.config, [model.config.max_text]
    lattices, audio = chunk_tokens(config)
    return {
        "preset": preset,
        "chunks": chunks,
        "config": dataclasses.asdict(config),
        "parameters": parameter_counts(model),
        "paper": {part: figure.count for part, figure in paper_figures(config, preset).items()},
        "tokens": {"video": [lattice.tokens for lattice in lattices], "audio": audio, "combined": config.combined},
        "flops": {**forward_flops(config, chunks, text), "training_step": training_flops(config, chunks, text)},
        "state_bytes": None if config.latent == "bidirectional" else state_bytes(model, torch.float32),
    }


def _config(
    preset: str | None, file: Path, frames: int | None, size: int | None, combiner: str | None
) -> tuple[str, int, ModelConfig]:
    """Name of the preset, T, and the sizes."""
    import dataclasses

    from mirasol.core.errors import MirasolError
    from mirasol.model.config import COMBINERS, POOLED_COMBINERS, PRESETS
    from mirasol.model.sizes.paper import PARAMETERS, PaperInputs, paper_config
    from mirasol.model.sizes.presets import build_config
    from mirasol.pipeline.params.load import load_params

    if preset is not None and preset not in PRESETS:
        raise MirasolError(f"unknown preset `{preset}`: expected one of {', '.join(PRESETS)}")
    if combiner is not None and combiner not in COMBINERS:
        raise MirasolError(f"unknown combiner `{combiner}`: expected one of {', '.join(COMBINERS)}")
    if frames is not None and frames < 1:
        raise MirasolError(f"{frames} frames, expected at least 1")
    if preset is not None and preset in PARAMETERS:
        paper = PaperInputs()
        config = paper_config(
            preset, frames=frames or paper.frames, size=size or paper.size, combiner=combiner or "transformer"
        )
        return preset, paper.chunks, config
    params = load_params(file)
    clip = params.clip
    if frames is not None and frames % clip.chunks:
        raise MirasolError(f"{frames} frames in {clip.chunks} chunks: expected a multiple of {clip.chunks}")
    clip = dataclasses.replace(clip, frames_per_chunk=(frames or clip.frames) // clip.chunks, size=size or clip.size)
    spec = dataclasses.replace(params.model, preset=preset or params.model.preset)
    if combiner is not None:
        queries = spec.queries if combiner in POOLED_COMBINERS else "last"
        spec = dataclasses.replace(spec, combiner=combiner, queries=queries)
    config = build_config(
        spec,
        size=clip.size,
        frames_per_chunk=clip.frames_per_chunk,
        mels=clip.mels,
        audio_columns=clip.audio_columns,
        vocabulary=params.tokenizer.vocabulary,
        max_text=params.tokenizer.max_text,
    )
    return spec.preset, clip.chunks, config


def _print_parameters(preset: str, model: Mirasol) -> None:
    from mirasol.model.sizes.accounting import parameter_counts
    from mirasol.model.sizes.paper import paper_figures

    figures = paper_figures(model.config, preset)
    rows = [("part", "parameters", "the paper's", "off by", "why")]
    for part, count in parameter_counts(model).items():
        if part in figures:
            off = count / figures[part].count - 1
            why = figures[part].why if abs(off) > 0.03 else ""
            rows.append((part, f"{count:,}", f"{figures[part].count / 1e6:,.1f} M", f"{off:+.1%}", why))
        else:
            rows.append((part, f"{count:,}", "", "", ""))
    table(rows, right=(1, 2, 3))


def _print_tokens(config: ModelConfig) -> None:
    from mirasol.model.sizes.accounting import chunk_tokens

    lattices, audio = chunk_tokens(config)
    rows = [
        (f"video, {'x'.join(map(str, lattice.shape))}", str(lattice.tokens), " x ".join(map(str, lattice.counts)))
        for lattice in lattices
    ]
    total = sum(lattice.tokens for lattice in lattices) + audio
    rows += [("audio", str(audio), ""), ("all, n", str(total), ""), ("combined, m", str(config.combined), "")]
    print()
    table([("tokens of a chunk", "", "time, height, width"), *rows], right=(1,))


def _print_operations(config: ModelConfig, chunks: int) -> None:
    """One text of the longest length; the second size is twice the first, as in the paper's finetuning."""
    import dataclasses

    from mirasol.model.sizes.accounting import CHUNK_PARTS, forward_flops, training_flops

    text = [config.max_text]
    columns: list[list[str]] = []
    for size in (config.size, 2 * config.size):
        sized = dataclasses.replace(config, size=size)
        parts = forward_flops(sized, chunks, text)
        encoding = sum(parts[part] for part in CHUNK_PARTS)
        full = config.max_chunks
        step = sum(forward_flops(sized, full + 1)[part] - forward_flops(sized, full)[part] for part in CHUNK_PARTS)
        chunk = [*(parts[part] / chunks for part in CHUNK_PARTS), encoding / chunks]
        clip = [*(parts[part] for part in CHUNK_PARTS), encoding, parts["reconstruction"], parts["text"]]
        clip += [sum(parts.values()), training_flops(sized, chunks, text)]
        columns.append([f"chunk, {size} px", *(_short(n, UNITS) for n in chunk), "", "", "", "", _short(step, UNITS)])
        columns.append([f"clip, {size} px", *(_short(n, UNITS) for n in clip), ""])
    labels = [
        "FLOPs", *CHUNK_PARTS, "encoding", "reconstruction", f"a text of {config.max_text} tokens",
        "forward", "training step", f"a stream's step, {config.max_chunks} chunks seen",
    ]  # fmt: skip
    print()
    table(list(zip(labels, *columns, strict=True)), right=(1, 2, 3, 4))


def _print_state(model: Mirasol) -> None:
    import torch

    from mirasol.model.sizes.accounting import state_bytes

    if model.config.latent == "bidirectional":
        print("\na bidirectional latent model cannot stream")
        return
    single, half = (state_bytes(model, dtype) for dtype in (torch.float32, torch.bfloat16))
    rows = [(name, _short(single[name], BYTES), _short(half[name], BYTES)) for name in single]
    total = ("all", _short(sum(single.values()), BYTES), _short(sum(half.values()), BYTES))
    print()
    table([("a stream's state", "float32", "bfloat16"), *rows, total], right=(1, 2))


def _short(number: float, units: tuple[tuple[float, str], ...]) -> str:
    """Three digits and a unit: 1.53 T."""
    for unit, letter in units:
        if number >= unit:
            value = number / unit
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {letter}"
    return f"{number:.0f}"
