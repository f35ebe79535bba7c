"""The cost of many media files for DVC: kept in data/ as files, packed into tars, or behind a link with a listing.

    mirasol bench dvc_layout [--json FILE] [--rounds 3] [--files 10000] [--kib 4] [--quick]

Each layout has a separate scratch DVC repository in the temporary folder. `add` is the first `dvc add data`. `status`
is timed right after it (warm: DVC remembers its hashes) and with DVC's memory of hashes deleted (cold: as on a new
machine). `change` changes one medium and versions it. The work that `mirasol data import` does once for the layout
(writing tars, hashing files) counts as `prepare`. Elapsed time is compared: DVC waits for the disk as much as it
computes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import arguments, ratio, report, rounded, table

from mirasol.data.linked_media import write_listing

PER_TAR = 100
STEPS = ("prepare", "add", "status", "status, cold", "change")


class Layout:
    """A scratch repository whose ``data/`` holds media in one way."""

    def __init__(self, folder: Path, media: Path) -> None:
        self.media, self.root = media, folder
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        (self.data / "manifest.jsonl").write_text("{}\n" * 10)
        self.environment = os.environ | {"DVC_SITE_CACHE_DIR": str(folder / "site"), "DVC_NO_ANALYTICS": "1"}
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
        self.dvc("init", "--quiet")
        self.dvc("config", "core.check_update", "false")

    def dvc(self, *words: str) -> None:
        """Run DVC in the repository."""
        command = [sys.executable, "-m", "dvc", *words]
        subprocess.run(command, cwd=self.root, check=True, capture_output=True, env=self.environment)

    def forget(self) -> None:
        """Delete DVC's memory of the hashes of files."""
        shutil.rmtree(self.root / "site", ignore_errors=True)
        shutil.rmtree(self.root / ".dvc/tmp", ignore_errors=True)

    def prepare(self) -> None:
        """The work of the import: copies of all media."""
        (self.data / "media").mkdir(exist_ok=True)
        for path in self.media.iterdir():
            shutil.copy2(path, self.data / "media" / path.name)

    def change(self) -> None:
        """One medium changes."""
        (self.data / "media" / "0.mp4").write_bytes(os.urandom(1000))


class Hardlinks(Layout):
    """Files in data/ that DVC links to its cache instead of copying them."""

    def prepare(self) -> None:
        super().prepare()
        self.dvc("config", "cache.type", "hardlink")

    def change(self) -> None:
        (self.data / "media" / "0.mp4").unlink()  # the link leads into the cache
        super().change()


class Tars(Layout):
    """Plain tars in data/; a change writes its tar again."""

    def _pack(self, number: int, names: list[str]) -> None:
        with tarfile.open(self.data / "media" / f"{number:05d}.tar", "w") as tar:
            for name in names:
                tar.add(self.media / name, name)

    def prepare(self) -> None:
        (self.data / "media").mkdir(exist_ok=True)
        self.names = sorted((path.name for path in self.media.iterdir()), key=lambda name: int(name.split(".")[0]))
        for number in range(0, len(self.names), PER_TAR):
            self._pack(number // PER_TAR, self.names[number : number + PER_TAR])

    def change(self) -> None:
        (self.media / "0.mp4").write_bytes(os.urandom(1000))
        self._pack(0, self.names[:PER_TAR])


class Linked(Layout):
    """`mirasol data import NAME --link symlink`: a link to the media, and a listing."""

    def _list(self) -> None:
        write_listing(self.data, (f"media/{path.name}" for path in self.media.iterdir()))

    def prepare(self) -> None:
        (self.data / "media").symlink_to(self.media)
        self._list()

    def change(self) -> None:
        (self.media / "0.mp4").write_bytes(os.urandom(1000))
        self._list()


LAYOUTS = {"files": Layout, "files, hard-linked": Hardlinks, "tars of 100": Tars, "link and listing": Linked}


def timed(work: Callable[[], None]) -> float:
    """Seconds of the clock."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(layout: Layout) -> list[float]:
    """Seconds of STEPS."""

    def again() -> None:
        layout.change()
        layout.dvc("add", "data")

    seconds = [timed(layout.prepare), timed(lambda: layout.dvc("add", "data"))]
    seconds.append(timed(lambda: layout.dvc("status")))
    layout.forget()
    seconds.append(timed(lambda: layout.dvc("status")))
    return [*seconds, timed(again)]


def main() -> None:
    """Measure, print, write."""
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--kib", type=int, default=4, help="size of each")
    options = parser.parse_args()
    files = 200 if options.quick else options.files
    taken: dict[str, list[list[float]]] = {name: [] for name in LAYOUTS}  # [layout][round][step]
    table([(f"seconds, {files:,} files of {options.kib} KiB", *STEPS)])
    for _ in range(options.rounds):
        for number, (name, kind) in enumerate(LAYOUTS.items()):
            with tempfile.TemporaryDirectory(prefix="mirasol-dvc-") as folder:
                media = Path(folder, "videos")
                media.mkdir()
                for index in range(files):
                    (media / f"{index}.mp4").write_bytes(os.urandom(options.kib << 10))
                taken[name].append(measure(kind(Path(folder, str(number)), media)))
            print(f"{name:<24}", *(f"{s:8.2f}" for s in taken[name][-1]), flush=True)

    def of(name: str, step: str) -> list[float]:
        return [round_[STEPS.index(step)] for round_ in taken[name]]

    linked = "link and listing"
    ratios = {
        f"files_over_link_{step.replace(', ', '_')}": ratio(of("files", step), of(linked, step))
        for step in ("add", "status", "status, cold", "change")
    }
    median = {n: {s: rounded(sorted(of(n, s))[len(taken[n]) // 2]) for s in STEPS} for n in LAYOUTS}
    report("dvc_layout", options.json, ratios, {"files": files, "kib": options.kib, "seconds": median})


if __name__ == "__main__":
    main()
