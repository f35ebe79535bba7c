"""One self-contained HTML file about a run: nothing is fetched, it opens offline and on a phone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from mirasol.core.errors import MirasolError
from mirasol.core.files import atomic_write
from mirasol.data.loading.dataset import ShardDataset
from mirasol.evaluation.report.ablations import ablations_section
from mirasol.evaluation.report.album import Album
from mirasol.evaluation.report.answers import (
    Prediction,
    choose,
    families_section,
    gallery_section,
    is_right,
    modalities_section,
)
from mirasol.evaluation.report.html import environment, render
from mirasol.evaluation.report.markdown import markdown
from mirasol.evaluation.report.paper import paper_section
from mirasol.evaluation.report.project import Project, read_project
from mirasol.evaluation.report.sections import data_section, hero, origin_section, stream_section, training_section
from mirasol.tasks.scoring.config import EvaluateSpec

if TYPE_CHECKING:  # its module needs torch
    from mirasol.evaluation.attribution.attribute import Attribution

__all__ = ["markdown", "render_page", "write_report"]

SHEET = 6  # clips of the contact sheet
GALLERY = 12  # clips of the gallery if params.yaml has no number


def write_report(project: Path, out: Path) -> Path:
    """Write ``out/index.html`` about the project folder; a stage that has not run is a visible note.

    Returns:
        The path of the page.

    Raises:
        MirasolError: ``project`` is not a folder, or ``out`` cannot be written.
    """
    if not project.is_dir():
        raise MirasolError(f"{project}: no such folder: run `mirasol report` in the folder that holds params.yaml")
    page = render_page(read_project(project))
    with atomic_write(out / "index.html", "w") as file:
        file.write(page)
    return out / "index.html"


def render_page(project: Project) -> str:
    """The page."""
    album = Album()
    reader = ClipReader(project, album)
    evaluate = _section_of(project.params, "evaluate")
    asked = evaluate.get("gallery")
    show = asked if isinstance(asked, int) else GALLERY
    chosen = choose(project.predictions, show, reader.readable) if show else []
    report = project.reports.get("eval")
    featured = _featured(chosen, report)
    sheet = _contact_sheet(project.predictions, chosen, reader)
    looks, note = reader.looks(chosen)
    gallery = functools.partial(gallery_section, project.predictions, chosen, album, show, looks, note)
    # In the order of a reader who did not write it; the last six are folded.
    built: list[tuple[str, str, Callable[[], str]]] = [
        ("top", "", lambda: hero(project, album, featured)),
        ("gallery", "Examples", gallery),
        ("families", "Questions", lambda: families_section(report)),
        ("mistakes", "Mistakes", lambda: gallery(wrong=True)),
        ("training", "Training", lambda: training_section(project)),
        ("modalities", "Senses", lambda: modalities_section(report)),
        ("data", "Data", lambda: data_section(project, album, sheet)),
        ("paper", "Paper", lambda: paper_section(project)),
        ("ablations", "Ablations", lambda: ablations_section(project)),
        ("stream", "Stream", lambda: stream_section(project)),
        ("origin", "Origin", lambda: origin_section(project)),
    ]
    sections = [(name, label, html) for name, label, build in built if (html := _section(name, build))]
    return environment().get_template("report.html").render(album=album, sections=sections)


def _featured(chosen: Sequence[Prediction], report: Mapping[str, Any] | None) -> Prediction | None:
    """A right answer for the top of the page, if possible of a family that needs both picture and sound."""
    families = _section_of(report, "families")
    right = [p for p in chosen if is_right(p)]
    both = [p for p in right if len(_section_of(families, p["family"]).get("needs", ())) > 1]
    return next(iter(both or right), None)


def _section(name: str, build: Callable[[], str]) -> str:
    """A section, or a note in its place: a report of another version must not cost the whole page."""
    try:
        return build()
    except (ArithmeticError, AttributeError, LookupError, TemplateError, TypeError, ValueError) as error:
        return render("broken.html", name=name, error=repr(error))


class ClipReader:
    """Puts clips of the evaluated split into the album, if the shards have them."""

    def __init__(self, project: Project, album: Album) -> None:
        self.album = album
        self.project = project
        self.shards: ShardDataset | None = None
        self.index: dict[str, int] = {}
        evaluate = _section_of(project.params, "evaluate")
        try:
            self.shards = ShardDataset(project.folder / "build" / "shards", str(evaluate.get("split", "test")))
            self.index = {key: i for i, key in enumerate(self.shards.keys)}
        except (MirasolError, OSError):
            pass  # no shards: the page has a note instead of the pictures

    def readable(self, key: str) -> bool:
        """Whether the album has the clip, or takes it."""
        if self.shards is None or key not in self.index:
            return False
        try:
            clip = self.shards.read(self.index[key])
        except (MirasolError, OSError):
            return False
        seconds = float(clip.meta["chunks"]) * float(clip.meta["chunk_seconds"])
        return self.album.add(key, clip.video, clip.audio, seconds)

    def looks(self, chosen: Sequence[Prediction]) -> tuple[dict[str, Attribution], str]:
        """Where the model looked for each answer, by example id, and a note about missing ones."""
        if self.shards is None or not chosen:
            return {}, ""
        from mirasol.evaluation.report.attribution import looks  # torch takes a while to load

        longest = _section_of(self.project.params, "evaluate").get("max_answer")
        longest = longest if isinstance(longest, int) else EvaluateSpec().max_answer
        return looks(self.project.folder, self.shards, chosen, longest)


def _contact_sheet(
    predictions: Sequence[Prediction], chosen: Sequence[Prediction], reader: ClipReader
) -> list[tuple[str, str, str]]:
    """Clips as (key, question, answer): first clips that the gallery does not show, families in turn."""
    known = {p["clip"] for p in chosen}
    others = [p for p in predictions if p["clip"] not in known]
    rows: list[tuple[str, str, str]] = []
    for part in (others, chosen):
        families: set[str] = set()
        clips: set[str] = set()
        for prediction in part:
            if len(rows) == SHEET:
                break
            fresh = prediction["family"] not in families and prediction["clip"] not in clips
            if fresh and reader.readable(prediction["clip"]):
                families.add(prediction["family"])
                clips.add(prediction["clip"])
                rows.append((prediction["clip"], prediction["prompt"], prediction["answers"][0]))
    return rows


def _section_of(values: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    found = (values or {}).get(name)
    return found if isinstance(found, Mapping) else {}
