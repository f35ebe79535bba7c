"""Small pieces of HTML that the sections of the report share. Text goes in escaped, pieces come out as they are."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirasol.evaluation.pictures import STRIP_SIDE, data_uri, png, spectrogram, strip
from mirasol.evaluation.report.charts import number
from mirasol.evaluation.report.project import Looked, Pictures
from mirasol.media.log_mel import SILENCE

LOUD = 2.2  # drawn brightest; the standardised features (data.features) reach 3 at full scale
LOOKED_FRAMES = 8  # of a clip's strip, where it is shown with what counted
LABELLED = 8  # chunks; more have no room for numbers

NO_PICTURE = '<p class="none">no picture</p>'
NO_SOUND = '<p class="none">no sound</p>'


def text(value: object) -> str:
    """Escaped for a text or a quoted attribute."""
    return html.escape(str(value), quote=True)


def percent(value: float) -> str:
    """A share as per cent with one decimal: 0.9871 -> ``98.7 %``, with a narrow space that does not break."""
    return f"{100 * value:.1f}".removesuffix(".0") + "\u202f%"


def interval(cell: Mapping[str, Any]) -> str:
    """The 95 % interval of a cell: ``97.9 to 99.2 %``."""
    low, high = cell["ci95"]
    return f"{percent(low)[:-2]} to {percent(high)}"


def title(name: str) -> str:
    """A name of a key as words: ``audio_pretrain`` -> ``audio pretrain``."""
    return text(name.replace("_", " ").replace("-", " "))


def missing(what: str, command: str, state: str = "not run yet") -> str:
    """A visible note in the place of what is not there, with the command that makes it."""
    return f'<p class="missing">{text(what)}: <b>{text(state)}</b>: <code>{text(command)}</code></p>'


def section(name: str, heading: str, lead: str, body: str) -> str:
    """One section of the page; ``lead`` and ``body`` are HTML."""
    lead = f'<p class="lead">{lead}</p>' if lead else ""
    return f'<section id="{name}"><h2>{text(heading)}</h2>{lead}{body}</section>'


def stat(name: str, value: str, detail: str = "", extra: str = "") -> str:
    """A headline figure; all but ``extra`` is text."""
    detail = f'<span class="detail">{text(detail)}</span>' if detail else ""
    head = f'<span class="name">{text(name)}</span><b class="value">{text(value)}</b>'
    return f'<div class="stat">{head}{extra}{detail}</div>'


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values; both are HTML."""
    return '<table class="pairs">' + "".join(f"<tr><th>{n}</th><td>{v}</td></tr>" for n, v in rows) + "</table>"


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested mappings with their dotted names."""
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows


def leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Names and values for a table; the innermost mappings share a row: ``chunk ms``, ``p50 6.1 · p99 9.3``."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if not isinstance(value, Mapping):
            rows.append((text(name), text(shown(value))))
        elif any(isinstance(inner, Mapping) for inner in value.values()):
            rows += leaves(value, f"{name} ")
        else:
            parts = (f"<span>{title(k)} {text(shown(v))}</span>" for k, v in value.items())
            rows.append((text(name), " · ".join(parts)))
    return rows


def shown(value: Any) -> str:
    """A value of a JSON file for a table cell."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10000 else str(value)
    if isinstance(value, list):
        return ", ".join(shown(v) for v in value) if value else "none"
    return str(value)


class Album:
    """The pictures of the page: each clip is stored once, as a style, and shown in many places.

    Pictures stop, with a count of those left out, when the page would grow past ``limit`` characters.
    """

    def __init__(self, limit: int = 3_600_000) -> None:
        self.limit = limit
        self.left_out = 0
        self.frames: dict[str, int] = {}
        self._rules: list[str] = []
        self._known: dict[str, Pictures] = {}

    def add(self, key: str, pictures: Pictures) -> bool:
        """Store a clip under its key; ``False`` when there is no room."""
        if key in self._known:
            return True
        rule = ""
        if pictures.video is not None:
            image = strip(pictures.video)
            self.frames[key] = image.shape[1] // min(STRIP_SIDE, image.shape[0])
            rule += f'.v-{key}{{background-image:url("{data_uri(png(image))}")}}'
        if pictures.audio is not None:
            rule += f'.a-{key}{{background-image:url("{data_uri(png(spectrogram(pictures.audio, SILENCE, LOUD)))}")}}'
        if sum(map(len, self._rules)) + len(rule) > self.limit:
            self.left_out += 1
            return False
        self._rules.append(rule)
        self._known[key] = pictures
        return True

    def style(self) -> str:
        """The style rules that hold the pictures."""
        return "\n".join(self._rules)

    def sheet(self, key: str) -> str:
        """All frames in a row, the sound below them on the same time axis, chunk limits drawn through both."""
        pictures = self._known[key]
        chunks = _chunks(pictures)
        frames = self.frames.get(key)
        video = f'<div class="strip v-{key}" style="--n:{frames}"></div>' if frames else NO_PICTURE
        marks = "".join(f'<i style="left:{100 * t / chunks:.3f}%"></i>' for t in range(1, chunks))
        label = f"frames and spectrogram, {chunks} chunks, {number(pictures.seconds)} seconds"
        return f'<div class="sheet" role="img" aria-label="{label}">{video}{self._sound(key)}{marks}</div>'

    def player(self, key: str) -> str:
        """The clip as a moving picture above its spectrogram with a running mark; a style animates both."""
        pictures = self._known[key]
        frames = self.frames.get(key)
        seconds = f"--time:{pictures.seconds:.3f}s;--n:{frames or 1}"
        steps = f"animation-timing-function:steps({frames},jump-none)" if frames and frames > 1 else ""
        video = f'<div class="screen v-{key}" style="{steps}"></div>' if frames else NO_PICTURE
        return (
            f'<div class="player" style="{seconds}" tabindex="0" role="img" aria-label="clip with spectrogram">'
            f'{video}<div class="sound">{self._sound(key)}<i class="now"></i></div></div>'
        )

    def looked(self, key: str, found: Looked) -> str:
        """Frames and sound of a clip under what counted in them, and a pair of bars for each chunk."""
        pictures = self._known[key]
        chunks = len(found.attention)
        count = self.frames.get(key, 0)
        step = -(-count // LOOKED_FRAMES) or 1
        shown = range(step // 2, count, step)
        size = f"background-size:{100 * count}% 100%"
        places = (f"background-position-x:{100 * i / max(count - 1, 1):.2f}%;{size}" for i in shown)
        cells = "".join(f'<i class="v-{key}" style="{place}"></i>' for place in places)
        heat = found.frames.reshape(len(found.frames), -1, len(found.frames), 4)  # [H, frames, W, 4]
        video = NO_PICTURE
        if shown:
            hot = heat[:, list(shown)].reshape(len(heat), -1, 4)
            video = f'<div class="lane frames" style="--n:{len(shown)}">{cells}{_glow(hot)}</div>'
        sound = NO_SOUND
        if pictures.audio is not None:
            sound = f'<div class="lane">{self._sound(key)}{_glow(found.sound)}</div>'
        marks = "".join(f'<i style="left:{100 * t / chunks:.3f}%"></i>' for t in range(1, chunks))
        top = max(*found.attention, *found.counted, 1e-12)
        bars = "".join(
            f'<span><i style="height:{100 * a / top:.0f}%"></i>'
            f'<i class="counted" style="height:{100 * c / top:.0f}%"></i>'
            + (f"<small>{100 * a:.0f}\u202f%</small></span>" if chunks <= LABELLED else "</span>")
            for a, c in zip(found.attention, found.counted, strict=True)
        )
        shares = ", ".join(f"{100 * a:.0f}" for a in found.attention)
        label = (
            f"where it looked for {' '.join(found.pieces)}: attention over the {chunks} chunks {shares} %; of what "
            f"counted {100 * found.picture:.0f} % is picture"
        )
        return (
            f'<figure class="looked" role="img" aria-label="{text(label)}">'
            f'<div class="sheet">{video}{sound}{marks}</div><div class="weights">{bars}</div></figure>'
        )

    def _sound(self, key: str) -> str:
        if self._known[key].audio is None:
            return NO_SOUND
        return f'<div class="spectrogram a-{key}"></div>'


def _glow(image: NDArray[np.uint8]) -> str:
    return f'<img alt="" src="{data_uri(png(image))}">'


def _chunks(pictures: Pictures) -> int:
    for part in (pictures.video, pictures.audio):
        if part is not None:
            return int(part.shape[0])
    return 1


def chips(names: Sequence[tuple[str, str, bool]]) -> str:
    """Short labelled answers: (label, answer, right); all are text."""
    return "".join(
        f'<span class="chip {"yes" if right else "no"}"><small>{text(label)}</small>{text(answer)}</span>'
        for label, answer, right in names
    )
