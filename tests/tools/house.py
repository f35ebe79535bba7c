"""Figures about the structure of the code: `python tests/tools/house.py [--json FILE]`.

`tests/unit/test_house.py` holds the code to `BOUNDS`. Only the standard library is imported, so that the figures can
be taken of any checkout: `--root DIR`.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
WH_WORDS = re.compile(r"\b(what|whatever|who|whoever|whom|whose|nobody|there)\b", re.IGNORECASE)
WORD = re.compile(r"\b[^\W\d_][\w'-]*\b")
JARGON = re.compile(r"\b(rooms?|floors?)\b", re.IGNORECASE)
# The floor of a level in decibels is no jargon.
MEANT = re.compile(
    r"floor of the (features|decibels)|floor at -80 dB|The floor lies above|``floor``|\.floor\b|\bfloor\("
    r"|\bfloor: float|\bFLOOR\b"
)
Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def sources(root: Path) -> list[Path]:
    """The Python files of the package and of the flows."""
    return sorted([*(root / "src").rglob("*.py"), *(root / "flows").rglob("*.py")])


def module_name(root: Path, path: Path) -> str:
    """The dotted name of a source file."""
    base = root / "src" if path.is_relative_to(root / "src") else root
    return ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")


def functions_8_parameters(root: Path) -> list[str]:
    """Functions with eight or more parameters, ``self`` and ``cls`` not counted."""
    found = []
    for path in sources(root):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = len([a for a in arguments if a.arg not in ("self", "cls")])
                if count >= 8:
                    found.append(f"{path.relative_to(root)}:{node.lineno} {node.name} takes {count}")
    return found


def long_files(root: Path) -> list[str]:
    """Python files of more than 400 lines."""
    folders = ("src", "flows", "ablations", "benchmarks", "examples", "tests")
    files = [
        (path, path.read_text(encoding="utf-8").count("\n")) for name in folders for path in (root / name).rglob("*.py")
    ]
    return [f"{path.relative_to(root)} {lines}" for path, lines in sorted(files) if lines > 400]


def docstrings(root: Path) -> Iterator[tuple[Path, str]]:
    """All docstrings of the package and of the flows."""
    for path in sources(root):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Documented) and (text := ast.get_docstring(node)):
                yield path, text


def wh_words_per_1000(root: Path) -> float:
    """What, who, whose, nobody and there among 1,000 words of docstrings."""
    texts = [text for _, text in docstrings(root)]
    words = sum(len(WORD.findall(text)) for text in texts)
    return round(1000 * sum(len(WH_WORDS.findall(text)) for text in texts) / max(words, 1), 2)


def jargon(root: Path) -> list[str]:
    """Lines of code and documents that say room or floor and mean a package or a layer."""
    documents = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    found = []
    for path in [*sources(root), *documents]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if JARGON.search(MEANT.sub("", line)):
                found.append(f"{path.relative_to(root)}:{number} {line.strip()[:100]}")
    return found


def imports(root: Path) -> dict[str, set[str]]:
    """Module -> modules of the project that it imports, anywhere in it."""
    names = {module_name(root, path) for path in sources(root)}
    graph: dict[str, set[str]] = {}
    for path in sources(root):
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                members = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= members & names or {node.module}
        me = module_name(root, path)
        graph[me] = (found & names) - {me}
    return graph


def circles(root: Path) -> list[list[str]]:
    """Groups of files that import each other, directly or not (Tarjan)."""
    graph = imports(root)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    sys.setrecursionlimit(10_000)
    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found


def shares(root: Path) -> dict[str, float]:
    """Top-level package -> its share of the lines, research and benchmarks included, in per cent, largest first."""
    lines: dict[str, int] = {}
    outside = [*(root / "ablations").rglob("*.py"), *(root / "benchmarks").rglob("*.py")]
    for path in [*sources(root), *outside]:
        parts = module_name(root, path).split(".")
        top = parts[1] if parts[0] == "mirasol" and len(parts) > 1 else parts[0]
        lines[top] = lines.get(top, 0) + len(path.read_text(encoding="utf-8").splitlines())
    total = sum(lines.values())
    return {top: round(100 * n / total, 1) for top, n in sorted(lines.items(), key=lambda item: -item[1])}


def shard_reader_imports(root: Path) -> int:
    """Files of mirasol that the reader of shards imports, the `__init__.py` of packages included."""
    program = (
        "import sys, mirasol.data.loading.reader\n"
        "print(*(name for name in sys.modules if name.partition('.')[0] == 'mirasol'))"
    )
    environment = os.environ | {"PYTHONPATH": str(root / "src")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    return len(done.stdout.split())


def readme_words(root: Path) -> int:
    """Words of README.md, as `wc -w` counts them."""
    return len((root / "README.md").read_text(encoding="utf-8").split())


def docs_words(root: Path) -> int:
    """Words of all documents but the decision records, as `wc -w` counts them."""
    documents = [*root.glob("*.md"), *(root / "docs").glob("*.md")]
    return sum(len(path.read_text(encoding="utf-8").split()) for path in documents)


def figures(root: Path) -> dict[str, float]:
    """All figures, by name."""
    return {
        "functions_8_parameters": len(functions_8_parameters(root)),
        "long_files": len(long_files(root)),
        "wh_words_per_1000": wh_words_per_1000(root),
        "jargon": len(jargon(root)),
        "circles": len(circles(root)),
        "biggest_share": max(shares(root).values()),
        "shard_reader_imports": shard_reader_imports(root),
        "readme_words": readme_words(root),
        "docs_words": docs_words(root),
        "lines": sum(len(path.read_text(encoding="utf-8").splitlines()) for path in sources(root)),
    }


BOUNDS: Mapping[str, float] = {
    "functions_8_parameters": 1,  # cli: stream
    "long_files": 2,  # of tests
    "wh_words_per_1000": 3.0,
    "jargon": 0,
    "circles": 0,
    "biggest_share": 16.0,
    "shard_reader_imports": 10,
    "readme_words": 1200,
    "docs_words": 18_000,
}


def main() -> None:
    """Print the figures, with the places behind them if asked."""
    parser = argparse.ArgumentParser(description="Figures about the structure of the code.")
    parser.add_argument("--root", type=Path, default=ROOT, help="a checkout (default: this one)")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--places", action="store_true", help="list the places behind the figures")
    options = parser.parse_args()
    found = figures(options.root)
    for name, value in found.items():
        bound = f"  (at most {BOUNDS[name]:g})" if name in BOUNDS else ""
        print(f"{name:<24}{value:>8g}{bound}")
    if options.places:
        print(*functions_8_parameters(options.root), *jargon(options.root), *circles(options.root), sep="\n")
        print(shares(options.root))
        for path, text in docstrings(options.root):
            for line in text.splitlines():
                if WH_WORDS.search(line):
                    print(f"{path.relative_to(options.root)}: {line.strip()}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
