"""Hooks of mkdocs.yml: pages that are made from files outside docs/, and links that lead out of docs/."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", **{name: name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")}}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the top folder and the API reference."""
    for source, name in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=LINK.sub(_inside, text)))
    files.append(File.generated(config, "api.md", content=_reference()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links to files that the site does not have into plain text."""
    folder = Path(config["docs_dir"], page.file.src_uri).parent

    def kept(link: re.Match[str]) -> str:
        target = link[3].partition("#")[0]
        path = (folder / target).resolve()
        known = not target or re.match(r"[a-z]+:", target) or path.is_relative_to(config["docs_dir"])
        return link[0] if known else link[2]

    return LINK.sub(kept, markdown)


def _inside(link: re.Match[str]) -> str:
    """The same link, seen from docs/."""
    target = link[3]
    path, _, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", target):
        return link[0]
    inside = PAGES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else f"../{path}")
    return f"{link[1]}[{link[2]}]({inside}{'#' + anchor if anchor else ''})"


def _reference() -> str:
    """A section for each package with a face (`mirasol.core.face`), with its public names by module."""
    lines = ["# API reference", ""]
    for init in sorted((ROOT / "src" / "mirasol").rglob("__init__.py")):
        package = ".".join(init.parent.relative_to(ROOT / "src").parts)
        calls = [node for node in ast.walk(ast.parse(init.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        modules = [part for call in calls if ast.unparse(call.func) == "face" for part in call.keywords]
        names = [f"{package}.{part.arg}.{name}" for part in modules for name in ast.literal_eval(part.value).split()]
        if names:
            lines += [f"## {package}", ""] + [line for name in names for line in (f"::: {name}", "")]
    return "\n".join(lines)
