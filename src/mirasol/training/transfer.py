"""The files of a run behind a URL, for nodes that do not see the first one's folder (docs/decisions/0088).

``storage`` of cluster.yaml names a folder in an object store. The first process sends there what a phase reads, each
finished checkpoint, and what it wrote; each node's first process fetches what its own folder lacks or has otherwise.
Names hold a hash of the contents, and a checkpoint counts once its own file is there, after all that belongs to it.
Without the URL every function here returns at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from mirasol.core.errors import MirasolError
from mirasol.core.files import disk_error, sha256_file
from mirasol.data.shards.format import HASHED, INDEX, object_name, read_index
from mirasol.data.storage import RUNS, RemoteFolder, check_folder
from mirasol.training.best import FOLDER as BEST
from mirasol.training.config import TrainingConfig
from mirasol.training.curves import CURVES, SPEED
from mirasol.training.ranks import Ranks, join
from mirasol.training.weights import CONFIG, WEIGHTS

FILES = "files"  # folder there: inputs and results of phases
MARKER = re.compile(rf"step-(\d+)\.([0-9a-f]{{{HASHED}}})\.ckpt")
ROWS = "rows-"
OF_BEST = re.compile(rf"{BEST}-(\d+)\.([0-9a-f]+)\.({re.escape(WEIGHTS)}|{re.escape(CONFIG)})")
UNPUBLISHED = ".unpublished"  # suffix of a checkpoint that no other node has, until the run ends
NAMES_ROWS = "mirasol_shards"  # key in a checkpoint, as in mirasol.training.shards


def storage() -> str:
    """The URL; empty: all processes see one folder, or there is one node."""
    return os.environ.get(RUNS, "").rstrip("/")


def agree_on_storage(ranks: Ranks) -> None:
    """Take the first process's URL in all.

    Raises:
        MirasolError: it is none that files can be stored at.
    """

    def decide() -> str:
        if (url := storage()) and (wrong := check_folder(url)):
            raise MirasolError(f"storage in cluster.yaml: {wrong}")
        return url

    if ranks.store is not None:
        os.environ[RUNS] = str(ranks.agree("storage", decide))


def share(ranks: Ranks, topic: str, files: Sequence[Path]) -> None:
    """Give each node the first process's ``files``, paths in the project's folder, as far as they exist there.

    Raises:
        MirasolError: in all processes: the storage refuses, a disk is full, or a file came with other bytes; or a
            process lacks a file and there is no storage.
    """
    if not storage():
        needed = ranks.agree(topic, lambda: [str(path) for path in files if path.is_file()])
        lost = [path for path in needed if not Path(path).is_file()]
        advice = "put the project on a file system that all nodes share, or set `storage` in cluster.yaml"
        ranks.check(f"{topic} here", f"{Path.cwd()} holds no {', '.join(lost)}: {advice}" if lost else "")
        return
    remote = RemoteFolder(f"{storage()}/{FILES}")

    def send() -> dict[str, str]:
        found = {str(path): sha256_file(path) for path in files if path.is_file()}
        stored = remote.sizes()
        for path, sha256 in found.items():
            _send(remote, Path(path), object_name(Path(path).name, sha256), stored)
        return found

    found = ranks.agree(f"{topic} sent", send)

    def fetch() -> None:
        for path, sha256 in found.items():
            if not (Path(path).is_file() and sha256_file(path) == sha256):
                _fetch(remote, object_name(Path(path).name, sha256), Path(path), sha256)

    _on_each_node(ranks, f"{topic} fetched", fetch)


def receive_inputs(training: TrainingConfig, shards: Path, tokenizer: Path, init: Path | str) -> None:
    """Agree on the settings, and on what a phase reads besides tars: with a storage each node gets the first's files.

    Args:
        init: folder of the weights to start from, or `training.init`.

    Raises:
        MirasolError: in all processes: as :func:`share`, or the settings of one differ from the first one's.
    """
    folder = init if isinstance(init, Path) else Path(init.rpartition("@")[0]) if init else None
    weights = [folder / name for name in (WEIGHTS, CONFIG, CURVES)] if folder else []
    with join(training.timeout) as ranks:
        ours = dataclasses.asdict(training)
        theirs = ranks.agree("settings", lambda: ours)
        changed = [f"training.{key} ({theirs[key]}, now {ours[key]})" for key in ours if ours[key] != theirs.get(key)]
        fault = f"params.yaml differs from that of the first process: {'; '.join(changed)}" if changed else ""
        ranks.check("same settings", fault)
        agree_on_storage(ranks)
        share(ranks, "inputs", [shards / INDEX, tokenizer, *weights])
        ranks.check("shards", _lacking(shards) if storage() else "")


def share_results(training: TrainingConfig, results: Sequence[Path]) -> None:
    """Give each node the files and folders ``results`` of the first process; raises as :func:`share`."""
    if storage():
        files = [path for result in results for path in (result, *sorted(result.rglob("*"))) if path.is_file()]
        with join(training.timeout) as ranks:
            share(ranks, "results", files)


def _lacking(shards: Path) -> str:
    """Why this process cannot read the shards; empty if it can, or if reading them says why."""
    index = read_index(shards)
    tars = [tar["name"] for tars in index["splits"].values() for tar in tars]
    lost = [name for name in tars if not (shards / name).is_file()] if not index.get("storage") else []
    return f"{shards / lost[0]}: not here: set shards.storage to a URL, and make the shards again" if lost else ""


def fetch_checkpoint(ranks: Ranks, runs: Path) -> None:
    """Give each node the last checkpoint of the run in ``runs``; later ones in its own folder move aside.

    The storage decides once it has one; before, the first process's last checkpoint is sent.

    Raises:
        MirasolError: as :func:`share`.
    """
    if not storage():
        return
    remote, folder = _remote(runs), runs / "checkpoints"

    def decide() -> dict[str, int]:
        if not _markers(remote.sizes()):
            steps = [int(path.stem.rpartition("-")[2]) for path in folder.glob("step-*.ckpt") if _readable(path)]
            for path in [folder / f"step-{max(steps)}.ckpt"] if steps else []:
                for rows in path.with_name(f"{path.name}.d").glob(f"{ROWS}*/*.safetensors"):
                    _send(remote, rows, f"{rows.parent.name}.{rows.name}", {})
                publish(path)
        return remote.sizes()

    names: dict[str, int] = ranks.agree("checkpoint sent", decide)

    def fetch() -> None:
        if not (markers := _markers(names)):
            return
        last = max(markers)
        path = folder / f"step-{last}.ckpt"
        for other in folder.glob("step-*.ckpt"):
            if int(other.stem.rpartition("-")[2]) > last:
                other.replace(other.with_suffix(UNPUBLISHED))
        _fetch_step(remote, names, markers[last], path)

    _on_each_node(ranks, "checkpoint fetched", fetch)


def publish(path: Path) -> None:
    """Send the checkpoint whose own file ``path`` is complete, after the rows of all processes were sent.

    Raises:
        MirasolError: the storage refuses or cannot be reached.
    """
    if not storage():
        return
    runs = path.parent.parent
    remote, name = _remote(runs), object_name(path.name, sha256_file(path))
    stored = remote.sizes()
    for curves in (runs / CURVES, runs / SPEED):
        if curves.is_file():
            _send(remote, curves, f"{name.removesuffix('ckpt')}{curves.name}", {})
    for weights in sorted(path for file in (WEIGHTS, CONFIG) for path in (runs / BEST).glob(f"*/{file}")):
        name_there = _best_name(weights)
        _send(remote, weights, name_there, stored)
        step_there, _, file_there = name_there.split(".", 2)
        for other in stored:  # of an attempt at this step that came to no checkpoint, or of another run
            if other.startswith(f"{step_there}.") and other.endswith(f".{file_there}") and other != name_there:
                remote.remove(other)
    step = int(MARKER.fullmatch(name)[1])  # type: ignore[index]
    for other in stored:  # of another run, which this one took the place of; first: the last one there decides
        if (match := MARKER.fullmatch(other)) and int(match[1]) >= step and other != name:
            remote.remove(other)
    _send(remote, path, name, stored)


@contextlib.contextmanager
def rows_published(path: Path) -> Iterator[None]:
    """Send the file of rows that the block writes to ``path``; nodes other than the first keep no copy."""
    if not storage():
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    yield
    _send(_remote(path.parents[3]), path, f"{path.parent.name}.{path.name}", {})
    if os.environ.get("GROUP_RANK", "0") != "0":
        path.unlink()


def tidy(runs: Path, steps: Sequence[int], every: int = 0) -> None:
    """Remove all checkpoints from the storage but those of ``steps``, with what belonged to them.

    Multiples of ``every`` steps stay, too: another node, which led the run before, may have sent them. 0: none.
    """
    if not storage():
        return
    remote, folder = _remote(runs), runs / "checkpoints"
    names = remote.sizes()
    for_good = {step for step in _markers(names) if every and step % every == 0}
    rows = {inner.name for step in steps for inner in (folder / f"step-{step}.ckpt.d").glob(f"{ROWS}*")}
    best = {f"{BEST}-{weights.name}" for weights in (runs / BEST).glob("*")}
    for name in names:
        first = name.split(".")[0]
        match = re.match(rf"{ROWS}(\d+)-", first)
        stays = match is not None and int(match[1]) in for_good
        if not stays and first not in {*rows, *best, *(f"step-{step}" for step in {*steps, *for_good})}:
            remote.remove(name)


def _fetch_step(remote: RemoteFolder, names: dict[str, int], marker: str, path: Path) -> None:
    runs, short = path.parent.parent, marker.split(".")[1]
    whole = path.is_file() and sha256_file(path).startswith(short)
    with _temporary(path) as temporary:
        if not whole:
            remote.get(marker, temporary)
            if not sha256_file(temporary).startswith(short):
                raise MirasolError(f"{remote.url}/{marker}: the bytes do not match their hash: delete it there")
        held = torch.load(path if whole else temporary, map_location="cpu", weights_only=True, mmap=True)
        folder = held.get(NAMES_ROWS)
        rows = path.with_name(f"{path.name}.d") / str(folder)
        for name, size in names.items():
            match, beside = OF_BEST.fullmatch(name), name.removeprefix(marker.removesuffix("ckpt"))
            if folder and name.startswith(f"{folder}."):
                target = rows / name.removeprefix(f"{folder}.")
            elif match:
                target = runs / BEST / match[1] / match[3]
            elif not whole and beside in (CURVES, SPEED):  # no other name: the store may be writable by others
                target = runs / beside
                target.unlink(missing_ok=True)
            else:
                continue
            sha256 = match[2] if match else ""  # weights of other steps and runs have the same size
            if target.is_file() and target.stat().st_size == size and sha256_file(target).startswith(sha256):
                continue
            _fetch(remote, name, target, sha256)
        if not whole:
            temporary.replace(path)


def _readable(path: Path) -> bool:
    """Whether the checkpoint's own file is one: a damaged one leaves the one before."""
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # a damaged file fails in many ways
        return False
    return True


def _markers(names: dict[str, int]) -> dict[int, str]:
    """The own file of each checkpoint by its step."""
    return {int(match[1]): name for name in sorted(names) if (match := MARKER.fullmatch(name))}


def _remote(runs: Path) -> RemoteFolder:
    return RemoteFolder(f"{storage()}/{runs.name}")


def _best_name(path: Path) -> str:
    return f"{BEST}-{path.parent.name}.{sha256_file(path)[:HASHED]}.{path.name}"


def _send(remote: RemoteFolder, path: Path, name: str, stored: dict[str, int]) -> None:
    """Send ``path`` as ``name``, unless ``stored`` says that it is there."""
    if stored.get(name) != path.stat().st_size:
        remote.put(path, name)


def _fetch(remote: RemoteFolder, name: str, path: Path, sha256: str = "") -> None:
    """Write the object ``name`` to ``path``, whole or not at all; ``sha256`` is its hash or begins it."""
    with _temporary(path) as temporary:
        remote.get(name, temporary)
        if sha256 and not sha256_file(temporary).startswith(sha256):
            raise MirasolError(f"{remote.url}/{name}: the bytes do not match their hash: delete it there")
        temporary.replace(path)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name for an unfinished ``path``; the block's end removes what is left of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except OSError as error:
        raise disk_error(error, path) or error from error
    finally:
        temporary.unlink(missing_ok=True)


def _on_each_node(ranks: Ranks, topic: str, fetch: Callable[[], Any]) -> None:
    """Call ``fetch`` in the first process of each node; its error is that of all."""
    fault = ""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        try:
            fetch()
        except MirasolError as error:
            fault = str(error)
    ranks.check(topic, fault)
