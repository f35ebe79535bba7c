"""`mirasol weights`: start from weights that others have trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Start from weights that others have trained, or that you have.")


@app.command("import")
def import_(
    out: Annotated[Path, typer.Option(help="the folder to write: weights.safetensors and config.json")],
    vision: Annotated[
        Path | None, typer.Option(help="a ViT in safetensors, keys as in timm or as in Hugging Face's ViTModel")
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="a decoder in safetensors, keys as in Hugging Face's GPT-NeoX or as in mirasol's own"),
    ] = None,
    earlier: Annotated[
        Path | None, typer.Option("--from", help="a folder of mirasol weights, of another size or number of frames")
    ] = None,
    pixels: Annotated[
        str, typer.Option(help="how --vision was fed: imagenet, half (-1..1), or auto: as the files beside it say")
    ] = "auto",
    pieces: Annotated[
        Path | None, typer.Option(help="the tokenizer.json of --text or --from, where it lies elsewhere")
    ] = None,
    params: Annotated[Path, typer.Option(help="the params file that says what model to build")] = Path("params.yaml"),
) -> None:
    """Build the model of params.yaml, start it from local files, and say what became of every tensor.

    Of --from, --vision and --text at least one; the later in this order wins. Nothing is fetched and no pickle is
    read. The widths must agree: set model.vit to B, L or H for a ViT of that size. docs/weights.md says what is
    taken over exactly, what is interpolated and what is refused.

    Example:  mirasol weights import --vision vit-l-16.safetensors --pixels half --out weights/vit-l
    """
    from mirasol.cli.console import note, table
    from mirasol.core.errors import MirasolError
    from mirasol.pipeline.params.load import load_params
    from mirasol.pipeline.paths import TOKENIZER
    from mirasol.pipeline.stages import model_config
    from mirasol.tokenizer import Tokenizer
    from mirasol.training.convert_pretrained import Sources, import_weights
    from mirasol.training.weights import pinned

    if not (vision or text or earlier):
        raise MirasolError("nothing to import: name --vision FILE, --text FILE or --from FOLDER")
    settings = load_params(params)
    sources = Sources(earlier=earlier, vision=vision, text=text, pixels=pixels, pieces=pieces)
    try:
        config = model_config(settings)
        report = import_weights(config, Tokenizer.load(TOKENIZER), settings.training.seed, sources, out)
    except ValueError as error:
        raise MirasolError(f"{params}: the sections clip and model do not fit together: {error}") from error
    rows = [(part, how, f"{count:,}", source) for part, how, count, source in report.rows]
    total = sum(count for _, _, count, _ in report.rows)
    table([("part", "start", "parameters", "from"), *rows, ("all", "", f"{total:,}", "")], right=(2,))
    if report.unused:
        print("\nnot used:")
        table([(file, key, f"{count:,}", why) for file, key, count, why in report.unused], right=(2,))
    for line in report.notes:
        note(f"note: {line}")
    print(f'\nto train from these, in {params}:  training.init: "{pinned(out)}"')
