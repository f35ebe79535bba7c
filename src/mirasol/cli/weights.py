"""`mirasol weights`: start from trained weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mirasol.cli.console import Json, note, print_json, table, takes

app = typer.Typer(no_args_is_help=True, help="Start from trained weights, yours or published ones.")


@dataclass(frozen=True)
class Weights:
    """Options of `mirasol weights import`."""

    out: Annotated[Path, typer.Option(help="the folder to write: weights.safetensors and config.json")]
    vision: Annotated[
        Path | None, typer.Option(help="a ViT in safetensors, keys as in timm or as in Hugging Face's ViTModel")
    ] = None
    text: Annotated[
        Path | None,
        typer.Option(help="a decoder in safetensors, keys as in Hugging Face's GPT-NeoX or as in mirasol's own"),
    ] = None
    earlier: Annotated[
        Path | None, typer.Option("--from", help="a folder of mirasol weights, of another size or number of frames")
    ] = None
    pixels: Annotated[
        str, typer.Option(help="pixel scale of --vision: imagenet, half (-1..1), or auto: as the files next to it say")
    ] = "auto"
    pieces: Annotated[Path | None, typer.Option(help="the tokenizer.json of --text or --from, if elsewhere")] = None
    params: Annotated[Path, typer.Option(help="the params file of the model to build")] = Path("params.yaml")
    as_json: Json = False


@app.command("import")
@takes(Weights)
def import_(given: Weights) -> None:
    """Build the model of params.yaml, start it from local files, and list the source of every tensor.

    Of --from, --vision and --text at least one; the later in this order wins. Fetches nothing and reads no pickle.
    The widths must agree: set model.vit to B, L or H for a ViT of that size. docs/weights.md lists the tensors that
    are copied, interpolated and refused.

    Example:  mirasol weights import --vision vit-l-16.safetensors --pixels half --out weights/vit-l
    """
    from mirasol.core.errors import MirasolError
    from mirasol.pipeline.params.load import load_params
    from mirasol.pipeline.paths import TOKENIZER
    from mirasol.pipeline.stages import model_config
    from mirasol.tokenizer import Tokenizer
    from mirasol.training.convert_pretrained import Sources, import_weights
    from mirasol.training.weights import pinned

    if not (given.vision or given.text or given.earlier):
        raise MirasolError("nothing to import: name --vision FILE, --text FILE or --from FOLDER")
    settings = load_params(given.params)
    sources = Sources(
        earlier=given.earlier, vision=given.vision, text=given.text, pixels=given.pixels, pieces=given.pieces
    )
    try:
        config = model_config(settings, settings.pretrain)
        report = import_weights(config, Tokenizer.load(TOKENIZER), settings.training.seed, sources, given.out)
    except ValueError as error:
        raise MirasolError(f"{given.params}: the sections clip and model do not fit together: {error}") from error
    for line in report.notes:
        note(f"note: {line}")
    if given.as_json:
        used = [{"part": part, "start": how, "parameters": n, "from": source} for part, how, n, source in report.rows]
        unused = [{"file": str(file), "key": key, "parameters": n, "why": why} for file, key, n, why in report.unused]
        print_json({"used": used, "unused": unused, "init": pinned(given.out)})
        return
    rows = [(part, how, f"{count:,}", source) for part, how, count, source in report.rows]
    total = sum(count for _, _, count, _ in report.rows)
    table([("part", "start", "parameters", "from"), *rows, ("all", "", f"{total:,}", "")], right=(2,))
    if report.unused:
        print("\nnot used:")
        table([(file, key, f"{count:,}", why) for file, key, count, why in report.unused], right=(2,))
    print(f'\nto train from these, in {given.params}:  training.init: "{pinned(given.out)}"')
