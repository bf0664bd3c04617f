"""Help pages of the command line: two columns of whole words at any width, options by subject, and examples.

A command's page is made of its docstring: paragraphs, and commands to try below a line `Examples:`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import typer.core
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

WIDEST = 100
"""Characters of a line, at most: longer ones are hard to read."""
EXAMPLES = "Examples:"
WHAT, SAMPLER, RESOURCES = "Input", "Sampler and scheduler", "Resources"
LIMITS, RECORDS, OPTIONS = "Limits", "Records", "Options"
ORDER = (WHAT, SAMPLER, RESOURCES, LIMITS, RECORDS, OPTIONS)
"""Subjects of options that several commands have, in the order of a page; a command's own come after the first."""


class Entry(NamedTuple):
    """A line of a page: an argument, an option or a command."""

    name: str
    text: str


class Command(typer.core.TyperCommand):
    """A command whose help is a page."""

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Write the page."""
        formatter.write(page(self, ctx))


class Group(typer.core.TyperGroup):
    """A group of commands whose help is a page."""

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Write the page."""
        formatter.write(page(self, ctx))


def page(command: Any, ctx: typer.Context) -> str:
    """Return the help of a command or a group as wide as the terminal."""
    paragraphs, examples = parts_of(command.help or "")
    sections = sections_of(command, ctx)
    width = max((len(entry.name) for entries in sections.values() for entry in entries), default=0)
    console = Console(highlight=False)
    console.width = min(console.width, WIDEST)
    with console.capture() as captured:
        console.print(Text(command.get_usage(ctx)), soft_wrap=True)
        for paragraph in paragraphs:
            console.print(Text(f"\n{paragraph}"))
        if examples:
            console.print(Text(f"\n{EXAMPLES}", style="bold"))
            for line in examples:
                console.print(Text(f"  {line}", style="cyan"), soft_wrap=True)
        for title, entries in sections.items():
            console.print(Text(f"\n{title}:", style="bold"))
            grid = Table.grid(padding=(0, 2, 0, 0))
            grid.add_column(width=width, no_wrap=True, style="cyan")
            grid.add_column()
            for entry in entries:
                grid.add_row(Text(entry.name), Text(entry.text))
            console.print(Padding(grid, (0, 0, 0, 2)))
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def parts_of(text: str) -> tuple[list[str], list[str]]:
    """Return the paragraphs of a docstring, a line each, and its examples."""
    prose, _, examples = inspect.cleandoc(text).partition(f"{EXAMPLES}\n")
    paragraphs = [" ".join(paragraph.split()) for paragraph in prose.split("\n\n")]
    return [words for words in paragraphs if words], [line.strip() for line in examples.splitlines() if line.strip()]


def sections_of(command: Any, ctx: typer.Context) -> dict[str, list[Entry]]:
    """Return what a page lists below each of its titles."""
    sections: dict[str, list[Entry]] = {}
    for parameter in sorted(command.get_params(ctx), key=lambda item: item.param_type_name):  # arguments first
        if not getattr(parameter, "hidden", False):
            title = getattr(parameter, "rich_help_panel", None)
            default = WHAT if parameter.param_type_name == "argument" else OPTIONS
            sections.setdefault(title if isinstance(title, str) else default, []).append(entry_of(parameter))
    own = [title for title in sections if title not in ORDER]
    sections = {title: sections[title] for title in (WHAT, *own, *ORDER[1:]) if title in sections}
    for name, child in getattr(command, "commands", {}).items():
        title = getattr(child, "rich_help_panel", None)
        summary = parts_of(child.help or "")[0][:1]
        sections.setdefault(title if isinstance(title, str) else "Commands", []).append(Entry(name, "".join(summary)))
    return sections


def entry_of(parameter: Any) -> Entry:
    """Return an argument or an option: how it is written, and what it means, with its default."""
    return Entry(name_of(parameter), "  ".join([parameter.help or "", *_notes(parameter)]).strip())


def name_of(parameter: Any) -> str:
    """Return how a parameter is written; of several long names the first, for the others are old ones."""
    value = parameter.metavar or parameter.name.upper()
    if parameter.param_type_name == "argument":
        return value if parameter.required else f"[{value}]"
    long = next(name for name in parameter.opts if name.startswith("--"))
    short = [name for name in parameter.opts if not name.startswith("--")]
    if parameter.secondary_opts:
        long = f"--[no-]{long.removeprefix('--')}"
    return ", ".join([*short, long]) + ("" if parameter.is_flag else f" {value}")


def _notes(parameter: Any) -> Iterator[str]:
    if parameter.required and parameter.param_type_name == "option":
        yield "[required]"
    default = None if callable(parameter.default) else parameter.default
    if parameter.show_default is not False and default is not None and default is not False and default != []:
        yield f"[default: {'on' if default is True else default}]"
