"""The table of an ablation for a terminal, and what it amounts to in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.ablation.results import Ablation
from harness.statistics.compare import Verdict, in_words

if TYPE_CHECKING:
    from rich.table import Table

    from harness.statistics.compare import Comparison

NONE = "-"
DECIMALS = 4
STYLES = {Verdict.BETTER: "bold green", Verdict.WORSE: "red"}


def columns(found: Ablation) -> list[str]:
    """Return the titles of the table's columns."""
    base = found.request.base
    return ["variant", "seeds", found.metric, "std", f"- {base}", "95 % interval", "p", "verdict", "dev/miou"]


def cells(found: Ablation) -> list[list[str]]:
    """Return the table's cells as text, a line a variant, in the order of the plan."""
    compared = found.compare(found.metric)
    return [_line(found, variant.name, compared.get(variant.name)) for variant in found.request.variants]


def _line(found: Ablation, variant: str, versus: Comparison | None) -> list[str]:
    over, dev = found.summary(variant, found.metric), found.summary(variant, "dev/miou")
    line = [variant, f"{over.n}/{len(found.request.seeds)}", _number(over.mean), _number(over.std)]
    if versus is None:
        line += [NONE, NONE, NONE, "the base"]
    else:
        interval = NONE
        if versus.ci_low is not None and versus.ci_high is not None:
            interval = f"[{versus.ci_low:+.{DECIMALS}f}, {versus.ci_high:+.{DECIMALS}f}]"
        p = versus.p if versus.p is not None else versus.p_t
        line += [_signed(versus.difference), interval, NONE if p is None else f"{p:.2g}", str(versus.verdict)]
    return [*line, _number(dev.mean)]


def to_table(found: Ablation) -> Table:
    """Return the table for a terminal."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for title in columns(found):
        table.add_column(title, justify="left" if title in ("variant", "verdict") else "right", overflow="fold")
    compared = found.compare(found.metric)
    for line in cells(found):
        versus = compared.get(line[0])
        table.add_row(*line, style=STYLES.get(versus.verdict) if versus else None)
    return table


def lines(found: Ablation) -> list[str]:
    """Return what the table amounts to: how to read it, each verdict in words, what failed."""
    request = found.request
    compared = found.compare(found.metric)
    said = [f"{name}: {in_words(versus, DECIMALS)}" for name, versus in compared.items()]
    few = max((versus.n for versus in compared.values()), default=0)
    if compared and all(versus.p is None for versus in compared.values()):
        smallest = min(versus.smallest_p for versus in compared.values())
        said.append(
            f"p is that of the paired t-test, Holm-adjusted over {len(compared)} variants; the exact sign-flip test "
            f"cannot fall below {smallest:.2g} with {few} seeds and is left out"
        )
    elif compared:
        said.append(f"p is that of the exact sign-flip test, Holm-adjusted over {len(compared)} variants")
    said += [
        f"{run.variant} with seed {run.seed} {'is missing' if run.state == 'MISSING' else 'failed'}: "
        f"{run.error or 'it was not trained'}"
        for run in found.outcomes
        if run.state != "COMPLETE"
    ]
    if len({frozenset(run.seed for run in request.runs if run.variant == item.name) for item in request.variants}) > 1:
        said.append(
            "variants were asked for with different seeds: read the differences, which are paired, not the means"
        )
    again = "" if request.vary_data else ", all on the same split"
    said.append(
        f"{len(request.seeds)} seeds{again}; trained in {found.elapsed_s:.0f} s, {found.device_s / 3600:.2f} "
        "device-hours"
    )
    return said


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.{DECIMALS}f}"


def _signed(value: float | None) -> str:
    return NONE if value is None else f"{value:+.{DECIMALS}f}"
