"""`mirasol answer`, `stream` and `serve`: a bundle answers, without PyTorch."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mirasol.cli.console import Json, note, print_json, takes

app = typer.Typer()
BUNDLE = Path("build/bundle")
Bundle = Annotated[Path, typer.Option(help="the folder that the export stage wrote, or release:current, release:NAME")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads, 0: the engine decides")]
Provider = Annotated[
    str,
    typer.Option(
        help="execution provider: cpu; on an NVIDIA GPU cuda, tensorrt, tensorrt-native; auto: cuda if available, "
        "else cpu"
    ),
]
Question = Annotated[str, typer.Argument(help="in the words of the training questions")]


@app.command()
def answer(
    file: Annotated[Path, typer.Argument(help="a media file")],
    question: Question,
    join: Annotated[
        bool, typer.Option("--join", help="take a folder's files as one stream, in the order of names")
    ] = False,
    bundle: Bundle = BUNDLE,
    threads: Threads = 0,
    provider: Provider = "auto",
    as_json: Json = False,
) -> None:
    """Answer a question about a video, without PyTorch.

    Remarks on stderr say if the question is unlike any that was learnt, the sound is missing, or a part was not used.
    `mirasol predict` answers about many files.

    Example:  mirasol answer clip.mp4 'which sound is heard first?'
    """
    from mirasol.runtime.model import load

    found = load(bundle, threads=threads, provider=provider).answer(file, question, join=join)
    for flag in found.flags:
        note(flag.text)
    if as_json:
        facts = dataclasses.asdict(found) | {"flags": [flag.name for flag in found.flags]}
        print_json({"file": str(file), "question": question, "answer": facts.pop("text"), **facts})
    else:
        print(found)


@app.command()
def stream(
    source: Annotated[
        str, typer.Argument(help="a media file, a folder of them, synthetic, a camera (/dev/video0), or rtsp://…")
    ],
    ask: Annotated[str, typer.Option(help="the question, asked again and again")],
    every: Annotated[str, typer.Option(help="time of the stream between two answers, like 2s or 500ms")] = "2s",
    fast: Annotated[bool, typer.Option("--fast", help="as fast as it goes, instead of at the source's speed")] = False,
    bundle: Bundle = BUNDLE,
    threads: Threads = 0,
    provider: Provider = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="print each answer as a line of JSON")] = False,
) -> None:
    """Stream a video chunk by chunk and answer while it runs, without PyTorch.

    Ctrl-C ends it. SOURCE 0 is the first camera.

    Example:  mirasol stream clip.mp4 --ask 'which sound is heard first?'

    Example:  mirasol stream rtsp://camera/live --ask 'which colour is seen?' --every 5s
    """
    from mirasol.runtime.model import load
    from mirasol.runtime.sources.open import seconds_of
    from mirasol.runtime.view import show

    try:
        seconds = seconds_of(every)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--every") from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a supervisor ends it as Ctrl-C does
    model = load(bundle, threads=threads, provider=provider)
    if not as_json:
        show(model, source, ask, seconds, wait=not fast)
        return
    with contextlib.suppress(KeyboardInterrupt):
        for found in model.stream(source, ask, seconds, wait=not fast):
            print(json.dumps({"seconds": found.seconds, "answer": found.text}, ensure_ascii=False), flush=True)


@dataclass(frozen=True)
class Service:
    """Options of `mirasol serve`."""

    bundle: Bundle = BUNDLE
    host: Annotated[str, typer.Option(help="where to listen; by default no other machine can reach it")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8000
    sessions: Annotated[int, typer.Option(min=1, max=256, help="at once")] = 8
    max_upload: Annotated[int, typer.Option(min=1, help="MiB of one file")] = 256
    samples: Annotated[
        Path | None, typer.Option(help="a folder with clips that the page offers; default: the bundle's")
    ] = None
    idle: Annotated[float, typer.Option(min=1, help="seconds until an unused session ends")] = 120.0
    threads: Threads = 0
    provider: Provider = "auto"


@app.command()
@takes(Service)
def serve(service: Service) -> None:
    """Serve the model over HTTP and WebSockets, without PyTorch.

    Its page takes a video or opens the camera. If the environment variable MIRASOL_TOKEN is set, clients must send
    it. With --bundle release:current a release that becomes current takes over new sessions. docs/streaming.md
    describes the service.

    Example:  mirasol serve
    """
    from mirasol.runtime.engine import Engine
    from mirasol.runtime.releases import CURRENT, PREFIX, Registry
    from mirasol.serve.follow import Follower
    from mirasol.serve.limits import Limits
    from mirasol.serve.run import serve as run_serve

    limits = Limits(sessions=service.sessions, upload_bytes=service.max_upload << 20, idle_seconds=service.idle)

    def load(bundle: Path) -> Engine:
        return Engine(bundle, threads=service.threads, provider=service.provider)

    follow = Follower(Registry(), load, note) if str(service.bundle) == PREFIX + CURRENT else None
    address = service.host, service.port
    run_serve(lambda: load(service.bundle), *address, limits=limits, samples=service.samples, follow=follow, say=note)
