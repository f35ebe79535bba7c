"""`mirasol model`: sizes and costs of the presets, next to the paper's figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirasol.cli.console import Json, print_json, table, takes
from mirasol.cli.memory import MemoryOptions, memory
from mirasol.cli.preset import PRESET_HELP, chosen_config

if TYPE_CHECKING:
    from mirasol.model.mirasol import Mirasol

app = typer.Typer(no_args_is_help=True, help="Look at the model: parameters, tokens, operations, memory.")
app.command()(takes(MemoryOptions)(memory))

UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


@app.command()
def show(
    preset: Annotated[str | None, typer.Argument(help=PRESET_HELP)] = None,
    file: Annotated[Path, typer.Option(help="the params file")] = Path("params.yaml"),
    frames: Annotated[int | None, typer.Option(min=1, help="frames of a clip; the number of chunks stays")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="side of a frame in pixels")] = None,
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
        name, chunks, config = chosen_config(preset, file, frames, size, combiner)
        with torch.device("meta"):
            model = Mirasol(config)
    except ValueError as error:
        raise MirasolError(f"no such model: {error}") from error
    figures = _figures(name, chunks, model)
    if as_json:
        print_json(figures)
        return
    print(
        f"{name}: {chunks} chunks of {config.frames_per_chunk} frames of {config.size} x {config.size} and "
        f"{config.audio_columns} x {config.mels} log-mel, combiner {config.combiner}, m = {config.num_queries}\n"
    )
    _print(figures)


def _figures(preset: str, chunks: int, model: Mirasol) -> dict[str, Any]:
    """All that is printed; FLOPs with one text of the longest length.

    The second size of a frame is twice the first, as in the paper's finetuning.
    """
    import dataclasses

    import torch

    from mirasol.model.sizes.accounting import (
        CHUNK_PARTS,
        chunk_tokens,
        forward_flops,
        parameter_counts,
        state_bytes,
        training_flops,
    )
    from mirasol.model.sizes.paper import paper_figures

    config, text = model.config, [model.config.max_text]
    lattices, audio = chunk_tokens(config)
    flops: dict[int, Any] = {}
    for size in (config.size, 2 * config.size):
        sized, full = dataclasses.replace(config, size=size), config.max_chunks
        parts, before, after = (forward_flops(sized, *given) for given in ((chunks, text), (full,), (full + 1,)))
        flops[size] = {
            "encoding": {part: parts[part] for part in CHUNK_PARTS},
            "reconstruction": parts["reconstruction"],
            "text": parts["text"],
            "training_step": training_flops(sized, chunks, text),
            "stream_step": sum(after[part] - before[part] for part in CHUNK_PARTS),
        }
    return {
        "preset": preset,
        "chunks": chunks,
        "config": dataclasses.asdict(config),
        "parameters": parameter_counts(model),
        "paper": {part: dataclasses.asdict(figure) for part, figure in paper_figures(config, preset).items()},
        "tokens": {"video": [dataclasses.asdict(one) | {"tokens": one.tokens} for one in lattices], "audio": audio},
        "flops": flops,
        "state_bytes": {}
        if config.latent == "bidirectional"
        else {str(dtype)[6:]: state_bytes(model, dtype) for dtype in (torch.float32, torch.bfloat16)},
    }


def _print(figures: dict[str, Any]) -> None:
    config, chunks = figures["config"], figures["chunks"]
    rows: list[tuple[str, ...]] = [("part", "parameters", "the paper's", "off by", "why")]
    for part, count in figures["parameters"].items():
        theirs = ("", "", "")
        if paper := figures["paper"].get(part):
            off = count / paper["count"] - 1
            theirs = (f"{paper['count'] / 1e6:,.1f} M", f"{off:+.1%}", paper["why"] if abs(off) > 0.03 else "")
        rows.append((part, f"{count:,}", *theirs))
    table(rows, right=(1, 2, 3))

    video, audio = figures["tokens"]["video"], figures["tokens"]["audio"]
    rows = [("tokens of a chunk", "", "time, height, width")]
    for one in video:
        shape, counts = ("x".join(map(str, one["shape"])), " x ".join(map(str, one["counts"])))
        rows.append((f"video, {shape}", str(one["tokens"]), counts))
    total = sum(one["tokens"] for one in video) + audio
    rows += [("audio", str(audio), ""), ("all, n", str(total), ""), ("combined, m", str(config["num_queries"]), "")]
    print()
    table(rows, right=(1,))

    columns: list[list[str]] = []
    for size, flops in figures["flops"].items():
        encoding, text = flops["encoding"].values(), flops["text"]
        clip = [*encoding, sum(encoding), flops["reconstruction"], text, sum(encoding) + flops["reconstruction"] + text]
        clip.append(flops["training_step"])
        chunk = [*(n / chunks for n in encoding), sum(encoding) / chunks]
        step = _short(flops["stream_step"], UNITS)
        columns.append([f"chunk, {size} px", *(_short(n, UNITS) for n in chunk), "", "", "", "", step])
        columns.append([f"clip, {size} px", *(_short(n, UNITS) for n in clip), ""])
    labels = [
        "FLOPs", *flops["encoding"], "encoding", "reconstruction", f"a text of {config['max_text']} tokens", "forward",
        "training step", f"a stream's step, {config['max_chunks']} chunks seen",
    ]  # fmt: skip
    print()
    table(list(zip(labels, *columns, strict=True)), right=(1, 2, 3, 4))

    if not figures["state_bytes"]:
        print("\na bidirectional latent model cannot stream")
        return
    single, half = figures["state_bytes"].values()
    rows = [(name, _short(single[name], BYTES), _short(half[name], BYTES)) for name in single]
    rows.append(("all", _short(sum(single.values()), BYTES), _short(sum(half.values()), BYTES)))
    print()
    table([("a stream's state", "float32", "bfloat16"), *rows], right=(1, 2))


def _short(number: float, units: tuple[tuple[float, str], ...]) -> str:
    """Three digits and a unit: 1.53 T."""
    for unit, letter in units:
        if number >= unit:
            value = number / unit
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {letter}"
    return f"{number:.0f}"
