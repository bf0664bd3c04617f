"""Measure a card: its ceilings, the step of a training against them, and what a process on it is worth.

    python tests/benchmarks/bench_gpu.py
    python tests/benchmarks/bench_gpu.py --parts ceilings,step --json card.json
    python tests/benchmarks/bench_gpu.py --device cpu --quick

Every part stands alone, and is a few minutes on a card at most. A part that fails says so in its row, the others go on,
and the exit code is 1. Only the part `gang` needs Ray.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).parents[1]))  # for `reference`, which is no package of the product

from gpu_ceilings import measure_ceilings
from gpu_faults import measure_faults, measure_memory
from gpu_gang import measure_gang
from gpu_losses import measure_determinism, measure_losses
from gpu_processes import measure_processes
from gpu_rows import FAILED, Row, Setting, failed, tidy
from gpu_step import measure_gains, measure_plan, measure_step

Part = Callable[[Setting, Path], Iterator[Row]]
PARTS: dict[str, Part] = {
    "ceilings": measure_ceilings,
    "step": measure_step,
    "losses": measure_losses,
    "gains": measure_gains,
    "plan": measure_plan,
    "determinism": measure_determinism,
    "memory": measure_memory,
    "faults": measure_faults,
    "processes": measure_processes,
    "gang": measure_gang,
}


def measure(part: Part, setting: Setting, root: Path) -> list[Row]:
    """Return the rows of a part; where it fails, those so far and the reason."""
    rows: list[Row] = []
    try:
        for row in part(setting, root):
            rows.append(row)
    except Exception as error:
        print(traceback.format_exc(), file=sys.stderr)
        rows.append(failed("the rest of the part", error))
    tidy(setting.device)
    return rows


def show(part: str, rows: list[Row], console: Console) -> None:
    """Print a part: figures with what bounds them, and how much of the bound was reached."""
    table = Table(title=part, title_justify="left", box=None, header_style="bold")
    for name in ("what", "value", "unit", "bound", "note"):
        table.add_column(name, justify="right" if name in ("value", "bound") else "left", overflow="fold")
    of = ""
    for row in rows:
        if row.of != of:
            table.add_row(f"[italic]{row.of}[/]")
            of = row.of
        table.add_row(row.what, _number(row.value), row.unit, _number(row.bound), row.note)
    console.print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def about(setting: Setting) -> dict[str, Any]:
    """Return what the figures are of."""
    name = torch.cuda.get_device_name(setting.device) if setting.cuda else f"CPU, {torch.get_num_threads()} threads"
    return {"device": name, "torch": torch.__version__, "python": sys.version.split()[0], "quick": setting.quick}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s, which is the default")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="by default the card, if there is one")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works, measures nothing")
    parser.add_argument("--json", type=Path, help="file for the same figures, written after each part")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts.split(",")) - PARTS.keys():
        parser.error(f"--parts must be some of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda must have a card that torch can use, there is none: use --device cpu")
    cuda = torch.cuda.is_available() if options.device is None else options.device == "cuda"
    if not cuda:
        torch.set_num_threads(1)  # as in the workers of a search
    setting = Setting(torch.device("cuda", 0) if cuda else torch.device("cpu"), options.quick)
    warnings.filterwarnings("ignore", message=".*broadcast_buffers.*")
    found: dict[str, Any] = {**about(setting), "parts": {}}
    console = Console()
    console.print(", ".join(f"{name} {value}" for name, value in about(setting).items()))
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as root:
        for name in options.parts.split(","):
            begun = time.monotonic()
            rows = measure(PARTS[name], setting, Path(root))
            show(name, rows, console)
            seconds = time.monotonic() - begun
            found["parts"][name] = {"seconds": seconds, "rows": [row._asdict() for row in rows]}
            if options.json:
                options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    failed = any(row["note"].startswith(FAILED) for part in found["parts"].values() for row in part["rows"])
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
