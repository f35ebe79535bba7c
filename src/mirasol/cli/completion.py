"""`mirasol completion`: scripts for bash, zsh and fish, made from the commands themselves."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

app = typer.Typer()

BASH = """\
_mirasol() {{
  local command=mirasol word words=
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$command $word" in
      {commands}) command="$command $word" ;;
    esac
  done
  case "$command ${{COMP_WORDS[COMP_CWORD-1]}}" in
{values}
    *)
      case "$command" in
{words}
      esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _mirasol mirasol
"""
ZSH = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"
FISH = """\
function __mirasol_at
  set -l command mirasol
  for word in (commandline -opc)[2..-1]
    switch "$command $word"
      case {commands}
        set command "$command $word"
    end
  end
  test "$command" = "$argv[1]"
end
"""


@dataclass(frozen=True)
class Level:
    """A command with its full name, the words that can follow it, and its options with their choices."""

    name: str
    words: dict[str, str] = field(default_factory=dict)  # sub-command or choice of an argument -> help
    options: dict[str, tuple[str, ...] | None] = field(default_factory=dict)  # None: a flag; else choices, often none


@app.command()
def completion(
    context: typer.Context,
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="the shell that reads the script")],
) -> None:
    """Print a script that completes commands, options and choices.

    Example:  mirasol completion bash > ~/.local/share/bash-completion/completions/mirasol
    """
    levels = list(_levels(context.find_root().command, "mirasol"))
    print({"bash": _bash, "zsh": lambda found: ZSH + _bash(found), "fish": _fish}[shell](levels), end="")


def _levels(command: Any, name: str) -> Iterator[Level]:
    """The command and all below it. Typer gives its commands no public type."""
    level = Level(name)
    children = {n: child for n, child in getattr(command, "commands", {}).items() if not child.hidden}
    level.words.update({n: child.get_short_help_str() for n, child in children.items()})
    kinds = get_type_hints(command.callback) if command.callback else {}
    for parameter in command.params:
        choices = _choices(kinds.get(parameter.name))
        if parameter.param_type_name == "argument":
            level.words.update(dict.fromkeys(choices, ""))
        else:
            flags = [*parameter.opts, *parameter.secondary_opts]
            level.options.update(dict.fromkeys(flags, None if parameter.is_flag else choices))
    level.options["--help"] = None
    yield level
    for n, child in children.items():
        yield from _levels(child, f"{name} {n}")


def _choices(kind: Any) -> tuple[str, ...]:
    """The values of an annotation that is a Literal or an Enum, also as one part of a union; else none."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return tuple(str(member.value) for member in kind)
    if get_origin(kind) is Literal:
        return tuple(map(str, get_args(kind)))
    return tuple(choice for part in get_args(kind) for choice in _choices(part))


def _bash(levels: list[Level]) -> str:
    values = [
        f'    "{level.name} {option}") words="{" ".join(choices)}" ;;'
        for level in levels
        for option, choices in level.options.items()
        if choices is not None
    ]
    words = [
        f'        "{level.name}") if [[ ${{COMP_WORDS[COMP_CWORD]}} == -* ]]; then words="{" ".join(level.options)}"; '
        f'else words="{" ".join(level.words)}"; fi ;;'
        for level in levels
    ]
    commands = "|".join(f'"{level.name}"' for level in levels)
    return BASH.format(commands=commands, values="\n".join(values), words="\n".join(words))


def _fish(levels: list[Level]) -> str:
    lines = [FISH.format(commands=" ".join(f"'{level.name}'" for level in levels))]
    for level in levels:
        at = f"complete -c mirasol -n '__mirasol_at \"{level.name}\"'"
        lines += [f"{at} -f -a {word} -d {shlex.quote(told)}\n" for word, told in level.words.items()]
        for option, choices in level.options.items():
            name = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            takes = "" if choices is None else f" -r -a '{' '.join(choices)}'" if choices else " -r"
            lines.append(f"{at} {name}{takes}\n")
    return "".join(lines)
