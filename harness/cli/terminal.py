"""What goes where: people's words and tables on stdout, or on stderr when stdout is for one JSON object."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

FILE_WIDTH = 500
"""Columns of a table that goes into a file or a pipe."""


@dataclass
class Terminal:
    """Where a command speaks."""

    console: Console
    out: TextIO | None
    """Where the JSON object goes; none where none was asked for."""

    def say(self, line: str) -> None:
        """Write a line for people."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def result(self, data: Mapping[str, Any]) -> None:
        """Write the JSON object, if it was asked for."""
        if self.out is not None:
            self.out.write(json.dumps(data) + "\n")
            self.out.flush()


@contextlib.contextmanager
def terminal(as_json: bool) -> Iterator[Terminal]:
    """Yield where to speak. With JSON, whatever libraries print goes to stderr, too."""
    from rich.console import Console

    with contextlib.ExitStack() as stack:
        out = sys.stdout if as_json else None
        if as_json:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        stream = sys.stderr if as_json else sys.stdout
        yield Terminal(Console(file=stream, width=None if stream.isatty() else FILE_WIDTH), out)
