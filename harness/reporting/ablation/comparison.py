"""The tables of an ablation: each variant's mean and its paired difference to the base, and every single score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.ablation.results import rows
from harness.reporting.ablation.words import DECIMALS, plus_minus, with_interval
from harness.reporting.document import Block, Column, Data, Note, Section, Table
from harness.statistics.compare import Verdict

if TYPE_CHECKING:
    from harness.ablation.results import Ablation
    from harness.reporting.ablation.record import AblationRecord
    from harness.reporting.document import Cell

EXACT = ("variant", "n", "mean", "std", "pairs", "difference", "ci_low", "ci_high", "p_t", "p", "smallest_p", "verdict")
"""Columns of the CSV, as `harness.ablation.results.rows` names them."""
SPLITS = {"val": "the official validation images, looked at once, after training",
          "dev": "the images held back from training for development"}  # fmt: skip


def comparison(record: AblationRecord) -> Section:
    """Return the section."""
    found = record.found
    blocks: list[Block] = []
    for metric in dict.fromkeys([found.metric, "val/miou", "dev/miou"]):
        if any(found.scores(variant, metric) for variant in record.variants):
            blocks.append(compared(found, metric))
        else:
            blocks.append(Note(f"No complete training has a value of {metric}.", "missing"))
    blocks += [Note(text, "caution") for text in cautions(found)]
    blocks.append(scores(found))
    return Section("Comparison", blocks)


def cautions(found: Ablation) -> list[str]:
    """Return conclusions that must not be drawn from the tables."""
    versus = found.compare(found.metric)
    said = []
    if any(one.n > 1 for one in versus.values()):
        if len(versus) > 1:
            said.append(f"Intervals are those of single differences. Verdicts are not: p is adjusted for {len(versus)} "
                        "variants, so an interval may lie beside 0 and its verdict be within noise.")  # fmt: skip
        if not found.request.vary_data:
            said.append("All seeds train on the same labelled images. What other images would have shown, intervals "
                        "over seeds do not tell; with `--vary-data` seeds draw the splits, too.")  # fmt: skip
    return said


def compared(found: Ablation, metric: str) -> Table:
    """Return the table of a metric, as one would print it; its CSV holds `rows` in full."""
    lines, base = rows(found, metric), found.request.base
    exact_test = any(row["p"] is not None for row in lines)
    columns = [
        Column("variant"),
        Column("seeds", name="n"),
        Column(f"{metric}, mean ± std", name="mean"),
        Column(f"difference to {base}, 95 % interval", name="difference"),
        Column("p (t-test)", name="p_t", form=".3g"),
        *([Column("p (sign-flip)", name="p", form=".3g")] if exact_test else []),
        Column("verdict"),
    ]
    cells = [_line(row, base, exact_test) for row in lines]
    best = highest(lines)
    stands_out = best is not None and beyond_noise(lines, best)
    bold = frozenset({(best, 2)}) if best is not None and stands_out else frozenset()
    judged = metric == found.metric
    exact = Data(EXACT, [[row[key] for key in EXACT] for row in lines])
    name = "comparison" if judged else f"comparison-{metric.replace('/', '-').replace('_', '-').lower()}"
    return Table(name, _caption(found, metric, best, stands_out), columns, cells, bold=bold, exact=exact)


def highest(lines: list[dict[str, Any]]) -> int | None:
    """Return the row with the highest mean; none where there is no mean."""
    known = [(row["mean"], -index) for index, row in enumerate(lines) if row["mean"] is not None]
    return -max(known)[1] if known else None


def beyond_noise(lines: list[dict[str, Any]], best: int) -> bool:
    """Return whether the best mean is better by verdict: than the base, or, as the base, than all others."""
    verdict = lines[best]["verdict"]
    if verdict is not None:
        return bool(verdict == Verdict.BETTER)
    others = [row["verdict"] for row in lines if row["verdict"] is not None]
    return bool(others) and all(verdict == Verdict.WORSE for verdict in others)


def scores(found: Ablation) -> Table:
    """Return the table of single scores: a row a variant, a column a seed."""
    seeds = found.request.seeds
    cells: list[list[Cell]] = []
    for variant in found.request.variants:
        by_seed = found.scores(variant.name, found.metric)
        cells.append([variant.name, *(by_seed.get(seed) for seed in seeds)])
    form = f".{DECIMALS}f"
    columns = [Column("variant"), *(Column(f"seed {seed}", form=form) for seed in seeds)]
    caption = f"{found.metric} of every training. Scores in a column share a seed, and with it all that it draws."
    return Table("scores", caption, columns, cells)


def _line(row: dict[str, Any], base: str, exact_test: bool) -> list[Cell]:
    is_base = row["variant"] == base
    return [
        row["variant"],
        row["n"],
        plus_minus(row["mean"], row["std"]),
        with_interval(row["difference"], row["ci_low"], row["ci_high"]),
        row["p_t"],
        *([row["p"]] if exact_test else []),
        "the base" if is_base else row["verdict"],
    ]


def _caption(found: Ablation, metric: str, best: int | None, stands_out: bool) -> str:
    split = metric.partition("/")[0]
    judged = "" if metric == found.metric else f" Variants are judged by {found.metric}, not by this."
    where = f"{metric} on {SPLITS[split]}.{judged}" if split in SPLITS else f"{metric}.{judged}"
    family = len(found.others)
    how = (
        f" Differences are paired by seed; p is two-sided and adjusted for {family} variants (Holm)." if family else ""
    )
    if best is None or not family:
        return where + how
    name = found.request.variants[best].name
    return f"{where}{how} " + (
        "Bold: the highest mean, which is more than noise." if stands_out
        else f"No mean is bold: the highest, of {name}, is not beyond noise."
    )  # fmt: skip
