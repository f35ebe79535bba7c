"""Answers about many files, in several processes, in a table that an interrupted run continues. Without torch."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import write_json
from mirasol.core.machine import cores
from mirasol.core.progress import Progress
from mirasol.runtime.answer import Answer
from mirasol.runtime.answers_table import AnswersTable, Row, open_table, read_files, read_questions, summary_path
from mirasol.runtime.model import Model, load
from mirasol.runtime.sources.files import SUFFIXES

log = logging.getLogger(__name__)
UNREADABLE = "unreadable"
AHEAD = 4  # files per process that may be answered before an earlier one
CRASHED = "the decoder ended abnormally"


@dataclass(frozen=True)
class Asked:
    """The questions about one file."""

    name: str  # as in the table
    path: str
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Loading:
    """How each process loads the bundle."""

    bundle: str
    threads: int = 1
    provider: str = "auto"
    join: bool = False


def tasks_of(source: Path, asks: Sequence[str], *, join: bool = False) -> list[Asked]:
    """Every file of ``source`` with its questions, in order.

    Args:
        source: a folder, whose media files are asked about in the order of their paths, subfolders included; or a CSV
            with the columns file and question, paths relative to its folder.
        asks: the questions; a CSV with a column question takes none.
        join: the folder is one stream, in the order of the names.

    Raises:
        MirasolError: the source does not exist, is empty or wrong, or the questions are missing.
    """
    pairs: list[tuple[str, str]]
    if source.is_dir():
        if not asks:
            raise MirasolError(f"{source} is a folder: give a question with --ask")
        if join:
            return [Asked(str(source), str(source), tuple(dict.fromkeys(asks)))]
        files = sorted(p.relative_to(source).as_posix() for p in source.rglob("*") if p.suffix.lower() in SUFFIXES)
        names = [name for name in files if (source / name).is_file() and not _hidden(name)]
        if not names:
            raise MirasolError(f"{source}: holds no media file (looked for {', '.join(sorted(SUFFIXES))})")
        pairs, base = [(name, ask) for name in names for ask in asks], source
    elif source.suffix.lower() == ".csv" and source.is_file():
        if join:
            raise MirasolError(f"{source}: --join takes a folder")
        pairs = [(name, ask) for name in read_files(source) for ask in asks] if asks else read_questions(source)
        if not pairs:
            raise MirasolError(f"{source}: holds no row")
        base = source.parent
    elif source.exists():
        raise MirasolError(f"{source}: expected a folder or a .csv; for one file use `mirasol answer`")
    else:
        raise MirasolError(f"{source}: no such folder or .csv")
    questions: dict[str, dict[str, None]] = {}
    for name, ask in pairs:
        questions.setdefault(name, {})[ask] = None
    return [Asked(name, str(base / name), tuple(asked)) for name, asked in questions.items()]


def predict(
    tasks: Sequence[Asked], out: Path, loading: Loading, *, workers: int | None = None, progress: bool = True
) -> dict[str, Any]:
    """Answer ``tasks`` into the table ``out``; rows that it holds are kept, and only unreadable ones asked again.

    Rows are in the order of the tasks, whatever the number of processes, and equal to single answers; those asked
    again come last. A file that cannot be used gets rows with the flag "unreadable" and the reason.

    Args:
        tasks: from :func:`tasks_of`.
        out: the table, see :mod:`mirasol.runtime.answers_table`.
        loading: the bundle.
        workers: processes; by default one for each core, on a GPU one; 0 answers in this process, which a decoder
            that crashes then ends.
        progress: show it on stderr.

    Returns:
        The summary that is also written to ``out``.json: counts of files, answers, reused rows and flags, the
        unreadable files, and the bundle's hash.

    Raises:
        MirasolError: the bundle cannot be used, a question is empty or too long, the table belongs to another bundle
            or is in use, or no file could be used.
    """
    model = load(loading.bundle, threads=loading.threads, provider=loading.provider)
    loading = replace(loading, bundle=str(model.engine.bundle))  # a release may be promoted meanwhile
    if workers is None:
        workers = min(cores() if model.engine.provider == "cpu" else 1, len(tasks))
    for question in dict.fromkeys(question for task in tasks for question in task.questions):
        model.engine.check_question(question)
    asked = {(task.name, question) for task in tasks for question in task.questions}

    def again(row: Row) -> bool:  # the file may have come back
        return row.flag.startswith(f"{UNREADABLE}: ") and (row.file, row.question) in asked

    with open_table(out, model.engine.contract.sha256, again) as table:
        had = {(row.file, row.question) for row in table.rows}
        todo = [_without(task, had) for task in tasks]
        todo = [task for task in todo if task.questions]
        reused = sum(len(task.questions) for task in tasks) - sum(len(task.questions) for task in todo)
        bar = Progress("predict", len(tasks), "files", done=len(tasks) - len(todo)) if progress else None
        with bar or contextlib.nullcontext():
            for rows in _answered(todo, model, loading, workers):
                table.append(rows)
                if bar:
                    bar.advance()
        summary = _summary(table, tasks, reused, model.engine.contract.sha256)
        write_json(summary_path(out), summary)
    if summary["files"] and len(summary["unreadable"]) == summary["files"]:
        first = next(iter(summary["unreadable"].items()))
        raise MirasolError(f"none of the {summary['files']} files can be used, first {first[0]}: {first[1]}")
    return summary


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _without(task: Asked, had: set[tuple[str, str]]) -> Asked:
    questions = tuple(question for question in task.questions if (task.name, question) not in had)
    return Asked(task.name, task.path, questions)


def _answered(tasks: list[Asked], model: Model, loading: Loading, workers: int) -> Iterator[list[Row]]:
    """The rows of each task, in order."""
    if workers == 0:
        yield from (rows_of(model, task, loading.join) for task in tasks)
        return
    waiting = deque(tasks)
    while waiting:
        try:
            for rows in _pooled(list(waiting), loading, min(workers, len(waiting))):
                waiting.popleft()
                yield rows
        except BrokenProcessPool:  # a decoder crashed on one of the files under way: find it, one by one
            for _ in range(min(len(waiting), AHEAD * workers)):
                task = waiting.popleft()
                yield _alone(task, loading)


def _pooled(tasks: list[Asked], loading: Loading, workers: int) -> Iterator[list[Row]]:
    with _pool(loading, workers) as pool:
        running: deque[Future[list[Row]]] = deque()
        try:
            for task in tasks:
                running.append(pool.submit(_work, task))
                if len(running) >= AHEAD * workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _alone(task: Asked, loading: Loading) -> list[Row]:
    with _pool(loading, 1) as pool:
        try:
            return pool.submit(_work, task).result()
        except BrokenProcessPool:
            return _unreadable(task, CRASHED)


def _pool(loading: Loading, workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # the engine's threads do not survive a fork
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=(loading,))


_of_process: dict[str, Any] = {}


def _prepare(loading: Loading) -> None:
    _of_process["loading"] = loading


def _work(task: Asked) -> list[Row]:
    loading: Loading = _of_process["loading"]
    if "model" not in _of_process:  # here and not in _prepare, whose errors would not reach the caller
        _of_process["model"] = load(loading.bundle, threads=loading.threads, provider=loading.provider)
    return rows_of(_of_process["model"], task, loading.join)


def rows_of(model: Model, task: Asked, join: bool = False) -> list[Row]:
    """The rows of one file: its answers, or the reason why it cannot be used."""
    try:
        answers = model.answers(task.path, task.questions, join=join)
    except (MirasolError, OSError) as error:
        return _unreadable(task, str(error).removeprefix(f"{task.path}: "))
    except Exception as error:  # a fault of ours at one file must not cost the answers about the others
        log.exception("%s", task.path)
        return _unreadable(task, f"{type(error).__name__}: {error}")
    return [row_of(task.name, question, answer) for question, answer in zip(task.questions, answers, strict=True)]


def row_of(name: str, question: str, answer: Answer) -> Row:
    """An answer as a row of the table."""
    figures = (f"{answer.score:.6f}", f"{answer.margin:.6f}", f"{answer.seconds_used:.6g}")
    return Row(name, question, answer.text, *figures, "; ".join(flag.name for flag in answer.flags))


def _unreadable(task: Asked, why: str) -> list[Row]:
    flag = f"{UNREADABLE}: {' '.join(why.split())}"
    return [Row(task.name, question, "", "", "", "", flag) for question in task.questions]


def _summary(table: AnswersTable, tasks: Sequence[Asked], reused: int, bundle: str) -> dict[str, Any]:
    asked = {(task.name, question) for task in tasks for question in task.questions}
    rows = [row for row in table.rows if (row.file, row.question) in asked]
    bad = {row.file: row.flag.partition(": ")[2] for row in rows if row.flag.startswith(f"{UNREADABLE}: ")}
    flags = Counter(name for row in rows if row.file not in bad for name in row.flag.split("; ") if name)
    return {
        "bundle": bundle,
        "files": len(tasks),
        "answers": sum(row.file not in bad for row in rows),
        "reused": reused,
        "flags": dict(sorted(flags.items())),
        "unreadable": bad,
    }
