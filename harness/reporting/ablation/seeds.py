"""What seeds do: how far scores scatter, what pairing takes out of it, and how many seeds differences would need."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.reporting.ablation.looks import look_of, short
from harness.reporting.ablation.words import DECIMALS, count
from harness.reporting.document import Block, Column, Data, Facts, Figure, Note, Section, Table
from harness.statistics.intervals import differences
from harness.statistics.power import (
    DELTAS,
    MOST_SEEDS,
    POWER,
    seeds_needed,
    seeds_table,
    spread,
    spread_of_differences,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.ablation.results import Ablation
    from harness.reporting.ablation.record import AblationRecord
    from harness.reporting.document import Cell
    from harness.reporting.themes import Theme

FEWEST_CORRELATED = 3
"""Seeds below which a correlation is 1 or -1 whatever happens."""


class Pairing(NamedTuple):
    """What pairing by seed does for a variant, over the seeds that it shares with the base."""

    variant: str
    n: int
    difference: float
    std: float
    """Of the differences."""
    unpaired: float
    """What it would be if scores with the same seed had nothing in common: root of the sum of both variances."""
    correlation: float | None
    """Of the scores of both, over seeds; none with less than 3, or where one of them does not scatter."""
    needed: int | None
    """Seeds that would show such a difference with power 0.8, if the scatter is as estimated; none above 10 000."""
    needed_upper: int | None
    """The same if the scatter is its upper bound."""


def seeds(record: AblationRecord) -> Section:
    """Return the section."""
    found = record.found
    scores = {name: found.scores(name, record.metric) for name in record.variants}
    known = {name: by_seed for name, by_seed in scores.items() if by_seed}
    if not known:
        return Section("Seeds", [Note("No complete training has a score.", "missing")])
    blocks: list[Block] = [_figure(record, known)]
    if not found.others:
        return Section("Seeds", [*blocks, *_alone(scores[found.request.base])])
    pairs = pairings(found)
    if not pairs:
        why = "What seeds do can be told from two seeds on that a variant and the base both have."
        return Section("Seeds", [*blocks, Note(why, "missing")])
    share = shared_scatter([*known.values()])
    if share is not None:
        chance = 1 / len(known)
        blocks.append(Facts([("Scatter that variants share by seed", f"{share:.0%}"),
                             ("Share that chance alone would give", f"{chance:.0%}")]))  # fmt: skip
    return Section("Seeds", [*blocks, _table(record, pairs), Note(
        "Differences that few seeds found are often larger than they are, so the numbers of seeds are rather too "
        "small. They tell what to plan, not what was shown.", "caution")])  # fmt: skip


def _alone(scores: Mapping[int, float]) -> list[Block]:
    """Return how many seeds it takes to see differences from a configuration that was trained by itself."""
    if len(scores) < 2:
        return [Note("How far seeds scatter can be told from two on.", "missing")]
    needed = seeds_table(spread_of_differences(spread([*scores.values()])), DELTAS)
    caption = (
        "Seeds with which a paired t-test at 0.05 finds a difference with a chance of 0.8, if the seeds of two "
        "configurations have nothing in common; cautious: with the upper bound (80 %) of the scatter."
    )
    columns = [Column("difference"), Column("seeds"), Column("seeds, cautious")]
    return [Table("seeds-needed", caption, columns, [[one.delta, one.seeds, one.seeds_upper] for one in needed])]


def pairings(found: Ablation) -> list[Pairing]:
    """Return what pairing does for each variant that shares two seeds or more with the base."""
    base = found.scores(found.request.base, found.metric)
    result = []
    for name in found.others:
        scores = found.scores(name, found.metric)
        between = [*differences(scores, base).values()]
        if len(between) >= 2:
            shared = sorted(scores.keys() & base.keys())
            ours, theirs = [scores[seed] for seed in shared], [base[seed] for seed in shared]
            result.append(_pairing(name, between, ours, theirs))
    return result


def _pairing(name: str, between: Sequence[float], ours: Sequence[float], theirs: Sequence[float]) -> Pairing:
    scatter, mean = spread(between), statistics.fmean(between)
    apart = math.hypot(statistics.stdev(ours), statistics.stdev(theirs))
    enough = (None, None) if mean == 0 else (seeds_needed(mean, scatter.std), seeds_needed(mean, scatter.upper))
    return Pairing(name, len(between), mean, scatter.std, apart, correlation(ours, theirs), *enough)


def correlation(values: Sequence[float], others: Sequence[float]) -> float | None:
    """Return Pearson's correlation; none with less than 3 pairs, or where one side is constant."""
    if len(values) < FEWEST_CORRELATED or len(set(values)) == 1 or len(set(others)) == 1:
        return None
    return statistics.correlation(values, others)


def shared_scatter(scores: Sequence[Mapping[int, float]]) -> float | None:
    """Return which share of the scatter within variants is that of the seeds' means, in [0, 1].

    Of V variants and S seeds, over the seeds that all have: sum of squares between seeds over those between seeds plus
    the rest, of a two-way table without repetition. With nothing shared it is 1 / V on average, with nothing else 1.
    None for less than two variants or seeds, or where nothing scatters.
    """
    common = sorted(set.intersection(*(set(one) for one in scores))) if scores else []
    if len(scores) < 2 or len(common) < 2:
        return None
    table = [[one[seed] for seed in common] for one in scores]
    centred = [[value - statistics.fmean(row) for value in row] for row in table]
    within = sum(value**2 for row in centred for value in row)
    means = [statistics.fmean(column) for column in zip(*centred, strict=True)]
    return len(scores) * sum(mean**2 for mean in means) / within if within > 0 else None


def _table(record: AblationRecord, pairs: Sequence[Pairing]) -> Table:
    form = f".{DECIMALS}f"
    columns = [
        Column("variant"),
        Column("seeds", name="n"),
        Column("difference", form=f"+.{DECIMALS}f"),
        Column("its std, paired", name="std", form=form),
        Column("unpaired", name="unpaired_std", form=form),
        Column("correlation", form="+.2f"),
        Column("seeds needed", name="needed"),
        Column("to be safe", name="needed_upper"),
    ]
    rows: list[list[Cell]] = []
    for pair in pairs:
        needed = [_needed(number, pair) for number in (pair.needed, pair.needed_upper)]
        rows.append([*pair[:6], *needed])
    exact = [[*pair] for pair in pairs]
    caption = (f"What pairing by seed does, and how many seeds would show a difference in {record.metric} as large as "
               f"the one found, {POWER:.0%} of the time, in a single paired t-test at 0.05; to be safe: if the "
               "scatter is the upper bound that holds four times in five.")  # fmt: skip
    names = ["variant", "n", "difference", "std", "unpaired_std", "correlation", "needed", "needed_upper"]
    return Table("seeds-needed", caption, columns, rows, exact=Data(names, exact))


def _needed(number: int | None, pair: Pairing) -> Cell:
    if number is None and pair.difference != 0:
        return f"> {MOST_SEEDS}"
    return number


def _figure(record: AblationRecord, known: Mapping[str, Mapping[int, float]]) -> Figure:
    names, metric = [*known], record.metric
    every = sorted({seed for by_seed in known.values() for seed in by_seed})
    rows: list[list[Cell]] = [[name, *point] for name, by_seed in known.items() for point in sorted(by_seed.items())]
    caption = (f"{metric} of every training; bars are means. A line joins the trainings of a seed: where lines run "
               "side by side, seeds do the same to all variants, and pairing takes it out.")  # fmt: skip

    def paint(canvas: Any, theme: Theme) -> None:
        axes = canvas.subplots()
        for seed in every:
            values = [known[name].get(seed, math.nan) for name in names]  # a line breaks where a training is missing
            axes.plot(range(len(names)), values, color=theme.muted, linewidth=0.9, alpha=0.75, zorder=2)
            place, value = [(place, value) for place, value in enumerate(values) if value == value][-1]
            axes.annotate(str(seed), (place, value), (7, 0), textcoords="offset points", va="center", fontsize=7.5,
                          color=theme.muted)  # fmt: skip
        for place, name in enumerate(names):
            look, values = look_of(record, name, theme), [*known[name].values()]
            axes.scatter([place] * len(values), values, s=30, color=look.color, marker=look.mark,
                         edgecolors=theme.paper, linewidths=0.6, zorder=3)  # fmt: skip
            axes.plot([place - 0.22, place + 0.22], [statistics.fmean(values)] * 2, color=look.color, linewidth=2.4)
        turned = sum(len(short(name)) for name in names) > 70
        axes.set_xticks(range(len(names)), [short(name) for name in names], rotation=25 if turned else 0,
                        ha="right" if turned else "center", rotation_mode="anchor")  # fmt: skip
        axes.tick_params(axis="x", length=0, labelcolor=theme.ink)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel(metric)

    alt = f"Scores of {count(len(names), 'variant')}, lines join those of the same of {count(len(every), 'seed')}."
    return Figure("seeds", caption, alt, paint, Data(["variant", "seed", metric], rows), (7.6, 3.9))
