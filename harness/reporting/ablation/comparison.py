"""Scores of an ablation's variants: means and paired differences in tables, and what seeds do to them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.ablation.doubts import FEWEST_SEEDS
from harness.ablation.results import Ablation
from harness.formats import counted
from harness.reporting.ablation.record import DECIMALS, AblationRecord, line_style, plus_minus, short, with_interval
from harness.reporting.document import Block, Cell, Column, Data, Facts, Figure, Note, Section, Table
from harness.reporting.themes import Theme
from harness.statistics import power
from harness.statistics.compare import Verdict
from harness.statistics.intervals import differences
from search_spaces.ablation import PublishedValue

EXACT = ("variant", "n", "mean", "std", "pairs", "difference", "ci_low", "ci_high", "p_t", "p", "smallest_p", "verdict")
"""Columns of the CSV, as `Ablation.rows` names them."""
PRINTED = "val/miou"
"""The metric that stands beside published values."""
SPLITS = {"val": "the official validation images, looked at once, after training",
          "test": "training images that took part in nothing",
          "dev": "the images held back from training for development"}  # fmt: skip
UNSCORED = "not evaluated"
"""In place of the verdict on a variant that was trained and has no score."""
FEWEST_CORRELATED = 3
"""Seeds below which a correlation is 1 or -1 whatever happens."""


def comparison(record: AblationRecord) -> Section:
    """Return the section of all scores."""
    ablation = record.ablation
    blocks: list[Block] = []
    for metric in dict.fromkeys([record.metric, "val/miou", "test/miou", "dev/miou"]):
        if any(ablation.scores(variant, metric) for variant in record.variants):
            blocks += [*([crossing(record, metric)] if len(record.groups) > 1 else []), compared(record, metric)]
        elif metric == record.metric or (ablation.request.info.trainer == "css" and metric != "test/miou"):
            blocks.append(Note(f"No complete training has a value of {metric}.", "missing"))
    blocks += [Note(text, "caution") for text in cautions(ablation)]
    blocks += without_scores(record)
    blocks.append(scores(ablation, record.metric))
    if record.unscored and record.metric != "dev/miou":
        blocks.append(scores(ablation, "dev/miou"))
    return Section("Comparison", blocks)


def cautions(ablation: Ablation) -> list[str]:
    """Return conclusions that must not be drawn from the tables."""
    versus = [*ablation.compare(ablation.metric).values()]
    texts = []
    if any(comparison.n > 1 for comparison in versus):
        if versus[0].family > 1:
            texts.append(f"Intervals are those of single differences. Verdicts are not: p is adjusted for "
                         f"{versus[0].family} variants, so an interval may lie beside 0 and its verdict be within "
                         "noise.")  # fmt: skip
        if not ablation.request.draws_data and ablation.request.info.trainer != "scores":
            texts.append("All seeds train on the same labelled images. What other images would have shown, intervals "
                         "over seeds do not tell; with `--vary-data` seeds draw the splits, too.")  # fmt: skip
    return texts


def without_scores(record: AblationRecord) -> list[Block]:
    """Return a note on variants that a section leaves out since they have no score; none where all have some."""
    text = f"Trained, but not evaluated by {record.metric}, so without a number here: {', '.join(record.unscored)}."
    return [Note(text, "missing")] if record.unscored else []


def compared(record: AblationRecord, metric: str) -> Table:
    """Return the table of a metric, as one would print it; its CSV holds `rows` in full."""
    ablation, lines, crossed = record.ablation, record.ablation.rows(metric), len(record.groups) > 1
    papers = {} if crossed else printed(ablation, metric)  # else the table of the crossing has them
    exact_test = any(row["p"] is not None for row in lines)
    columns = [
        Column("variant"),
        Column("seeds", name="n"),
        Column(f"{metric}, mean ± std", name="mean"),
        *([Column("published", align="right")] if papers else []),
        Column(f"difference{'' if papers else f' to {record.base}'}, 95 % interval", name="difference"),
        Column("p (t-test)", name="p_t", form=".3g"),
        *([Column("p (sign-flip)", name="p", form=".3g")] if exact_test else []),
        Column("verdict"),
    ]
    cells: list[list[Cell]] = []
    for row in lines:
        verdict = "the base" if row["variant"] == record.base_of(row["variant"]) else said(row["verdict"], row["pairs"])
        if not row["n"] and row["variant"] in record.unscored:
            verdict = UNSCORED
        difference = with_interval(row["difference"], row["ci_low"], row["ci_high"])
        p = [row["p_t"], row["p"]] if exact_test else [row["p_t"]]
        paper = [_text(papers.get(row["variant"]))] if papers else []
        cells.append([row["variant"], row["n"], plus_minus(row["mean"], row["std"]), *paper, difference, *p, verdict])
    best, standing_out = highest(lines), outstanding(lines)
    caption = _caption(ablation, metric)
    if crossed:
        caption += " Bold: the highest mean of a group, where it is more than noise."
    elif best is not None and ablation.others:
        caption += (" Bold: the highest mean, which is more than noise." if standing_out
                    else f" No mean is bold: the highest, of {best['variant']}, is not beyond noise.")  # fmt: skip
    bold = frozenset((at, 2) for at, row in enumerate(lines) if row["variant"] in standing_out)
    return Table(_name("comparison", ablation, metric), caption + of_papers(ablation, papers), columns, cells,
                 bold=bold, exact=_exact(EXACT, lines, papers))  # fmt: skip


def crossing(record: AblationRecord, metric: str) -> Table:
    """Return the table of a crossing plan as papers print it: a row a level of the last factor, a column a group."""
    lines, papers = record.ablation.rows(metric), printed(record.ablation, metric)
    for row in lines:
        row["level"] = record.ablation.request.variant(row["variant"]).level
    names, standing_out = [*dict.fromkeys(row["level"] for row in lines)], outstanding(lines)
    columns, places = [Column("variant")], dict[str, int]()
    for group in record.groups:
        places[group] = len(columns)
        columns += [Column(group, align="right"), *([Column("published", align="right")] if papers else [])]
    cells: list[list[Cell]] = [[name, *[None] * (len(columns) - 1)] for name in names]
    bold = set[tuple[int, int]]()
    for row in lines:
        at, place = names.index(row["level"]), places[row["group"]]
        cells[at][place] = plus_minus(row["mean"], row["std"])
        if papers:
            cells[at][place + 1] = _text(papers.get(row["variant"]))
        if row["variant"] in standing_out:
            bold.add((at, place))
    caption = (f"{metric}, mean ± std over seeds: a column a group, a row a level. Differences and verdicts are within "
               f"a column, to its {record.base}. Bold: the highest mean of a column, where it is more than "
               f"noise.{of_papers(record.ablation, papers)}")  # fmt: skip
    return Table(_name("crossing", record.ablation, metric), caption, columns, cells, bold=frozenset(bold),
                 exact=_exact(("group", "level", *EXACT[1:]), lines, papers))  # fmt: skip


def printed(ablation: Ablation, metric: str) -> Mapping[str, PublishedValue]:
    """Return what a paper prints of the variants, by name; nothing of metrics other than the validation mIoU."""
    published = ablation.request.published
    return published.values if published is not None and metric == PRINTED else {}


def of_papers(ablation: Ablation, values: Mapping[str, PublishedValue]) -> str:
    """Return what published values are of, and what ours, for a caption; nothing without any."""
    request = ablation.request
    if not values or request.published is None:
        return ""
    model = request.info.config.get("model", {}) if request.info.trainer == "css" else {}
    network = model.get("arch")
    if network != "tiny":
        network = model.get("encoder") or model.get("backbone")
    ours = ", ".join(filter(None, [request.data, network])) or request.preset
    about = " A ~ marks what the source is not certain of." if any(value.about for value in values.values()) else ""
    return (f" Published: {request.published.of}, as printed there.{about} Ours: {ours}. With another data set, "
            "network or training, the order can be compared and the numbers cannot.")  # fmt: skip


def _text(value: PublishedValue | None) -> str | None:
    return None if value is None else str(value)


def _exact(keys: Sequence[str], lines: Sequence[Mapping[str, Any]], papers: Mapping[str, PublishedValue]) -> Data:
    """Return rows in full precision, and published values behind them where there are any."""
    columns = [*keys, *(("published", "published_spread", "published_about") if papers else ())]
    nothing = (None,) * (len(columns) - len(keys))
    return Data(columns, [[*(row[key] for key in keys), *papers.get(row["variant"], nothing)] for row in lines])


def highest(lines: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the row with the highest mean; none where no row has one."""
    return max((row for row in lines if row["mean"] is not None), key=lambda row: row["mean"], default=None)


def outstanding(lines: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the variants that have the highest mean of their group, where it is beyond noise."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in lines:
        groups.setdefault(row["group"], []).append(row)
    best = [(highest(rows), rows) for rows in groups.values()]
    return {row["variant"] for row, rows in best if row is not None and beyond_noise(rows, row)}


def beyond_noise(lines: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> bool:
    """Return whether the best mean is better by verdict: than the base, or, as the base, than all others with one."""
    if best["verdict"] is not None:
        return bool(said(best["verdict"], best["pairs"]) == Verdict.BETTER)
    others = [said(row["verdict"], row["pairs"]) for row in lines
              if row["verdict"] is not None and row["mean"] is not None]  # fmt: skip
    return bool(others) and all(verdict == Verdict.WORSE for verdict in others)


def said(verdict: Verdict, pairs: int) -> str:
    """Return a verdict for people: fewer pairs of seeds than decide anything leave it open."""
    return f"undecided: {counted(pairs, 'seed')}" if 1 < pairs < FEWEST_SEEDS else str(verdict)


def scores(ablation: Ablation, metric: str) -> Table:
    """Return the table of single scores: a row a variant, a column a seed."""
    seeds = ablation.request.seeds
    by_seed = {variant.name: ablation.scores(variant.name, metric) for variant in ablation.request.tried}
    cells: list[list[Cell]] = [[name, *(values.get(seed) for seed in seeds)] for name, values in by_seed.items()]
    columns = [Column("variant"), *(Column(f"seed {seed}", form=f".{DECIMALS}f") for seed in seeds)]
    caption = f"{metric} of every training. Scores in a column share a seed, and with it all that it draws."
    return Table(_name("scores", ablation, metric), caption, columns, cells)


def _name(kind: str, ablation: Ablation, metric: str) -> str:
    return kind if metric == ablation.metric else f"{kind}-{metric.replace('/', '-').replace('_', '-').lower()}"


def _caption(ablation: Ablation, metric: str) -> str:
    split, family = metric.partition("/")[0], max((one.family for one in ablation.compare(metric).values()), default=0)
    where = f"{metric} on {SPLITS[split]}." if split in SPLITS else f"{metric}."
    judged = "" if metric == ablation.metric else f" Variants are judged by {ablation.metric}, not by this."
    within = ", within a group" if len(ablation.request.groups) > 1 else ""
    how = (f" Differences are paired by seed{within}; p is two-sided and adjusted for {counted(family, 'variant')} "
           "(Holm).")  # fmt: skip
    return where + judged + (how if family else "")


class Pairing(NamedTuple):
    """What pairing by seed does for a variant, over the seeds that it shares with the base."""

    variant: str
    n: int
    difference: float
    std: float
    """Of the differences."""
    unpaired_std: float
    """What it would be if scores with the same seed had nothing in common: root of the sum of both variances."""
    correlation: float | None
    """Of the scores of both, over seeds; none with less than 3, or where one of them does not scatter."""
    needed: int | None
    """Seeds that would show such a difference with power 0.8, if the scatter is as estimated; none above 10 000."""
    needed_upper: int | None
    """The same if the scatter is its upper bound."""


def seeds(record: AblationRecord) -> Section:
    """Return the section on seeds: how far scores scatter, what pairing takes out of it, how many would be needed."""
    scores = {name: record.ablation.scores(name, record.metric) for name in record.variants}
    scores = {name: by_seed for name, by_seed in scores.items() if by_seed}
    if not scores:
        return Section("Seeds", [Note("No complete training has a score.", "missing")])
    blocks: list[Block] = [_seeds_figure(record, scores), *without_scores(record)]
    pairs = pairings(record.ablation)
    if not record.ablation.others:
        blocks.append(_seeds_alone(scores[record.base]))
    elif not pairs:
        why = "What seeds do can be told from two seeds on that a variant and the base both have."
        blocks.append(Note(why, "missing"))
    else:
        share = shared_scatter([*scores.values()])
        if share is not None:
            blocks.append(Facts([("Scatter that variants share by seed", f"{share:.0%}"),
                                 ("Share that chance alone would give", f"{1 / len(scores):.0%}")]))  # fmt: skip
        blocks += [_seeds_needed(record, pairs), Note(
            "Differences that few seeds found are often larger than they are, so the numbers of seeds are rather too "
            "small. They tell what to plan, not what was shown.", "caution")]  # fmt: skip
    return Section("Seeds", blocks)


def _seeds_alone(scores: Mapping[int, float]) -> Block:
    if len(scores) < 2:
        return Note("How far seeds scatter can be told from two on.", "missing")
    needed = power.seeds_table(power.spread_of_differences(power.spread([*scores.values()])), power.DELTAS)
    caption = (
        "Seeds with which a paired t-test at 0.05 finds a difference with a chance of 0.8, if the seeds of two "
        "configurations have nothing in common; cautious: with the upper bound (80 %) of the scatter."
    )
    return Table("seeds-needed", caption, [Column("difference"), Column("seeds"), Column("seeds, cautious")], needed)


def pairings(ablation: Ablation) -> list[Pairing]:
    """Return what pairing does for each variant that shares two seeds or more with the base."""
    pairs = []
    for name in ablation.others:
        base = ablation.scores(ablation.request.base_of(name), ablation.metric)
        scores = ablation.scores(name, ablation.metric)
        shared = sorted(scores.keys() & base.keys())
        if len(shared) >= 2:
            between = [*differences(scores, base).values()]
            ours, theirs = [scores[seed] for seed in shared], [base[seed] for seed in shared]
            scatter, mean = power.spread(between), statistics.fmean(between)
            unpaired = math.hypot(statistics.stdev(ours), statistics.stdev(theirs))
            needed = [power.seeds_needed(mean, std) if mean else None for std in (scatter.std, scatter.upper)]
            pairs.append(Pairing(name, len(shared), mean, scatter.std, unpaired, correlation(ours, theirs), *needed))
    return pairs


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
    common = sorted(set.intersection(*map(set, scores))) if scores else []
    if len(scores) < 2 or len(common) < 2:
        return None
    table = [[by_seed[seed] for seed in common] for by_seed in scores]
    centred = [[value - statistics.fmean(row) for value in row] for row in table]
    within = sum(value**2 for row in centred for value in row)
    means = [statistics.fmean(column) for column in zip(*centred, strict=True)]
    return len(scores) * sum(mean**2 for mean in means) / within if within > 0 else None


def _seeds_needed(record: AblationRecord, pairs: Sequence[Pairing]) -> Table:
    form = f".{DECIMALS}f"
    columns = [
        Column("variant"),
        Column("seeds", name="n"),
        Column("difference", form=f"+{form}"),
        Column("its std, paired", name="std", form=form),
        Column("unpaired", name="unpaired_std", form=form),
        Column("correlation", form="+.2f"),
        Column("seeds needed", name="needed"),
        Column("to be safe", name="needed_upper"),
    ]
    cells: list[list[Cell]] = []
    for pair in pairs:
        endless = f"> {power.MOST_SEEDS}" if pair.difference else None
        cells.append([*pair[:6], pair.needed or endless, pair.needed_upper or endless])
    caption = (f"What pairing by seed does, and how many seeds would show a difference in {record.metric} as large as "
               f"the one found, {power.POWER:.0%} of the time, in a single paired t-test at 0.05; to be safe: if the "
               "scatter is the upper bound that holds four times in five.")  # fmt: skip
    return Table("seeds-needed", caption, columns, cells, exact=Data(Pairing._fields, pairs))


def _seeds_figure(record: AblationRecord, scores: Mapping[str, Mapping[int, float]]) -> Figure:
    names, seeds = [*scores], sorted({seed for by_seed in scores.values() for seed in by_seed})
    rows = [(name, *point) for name, by_seed in scores.items() for point in sorted(by_seed.items())]
    caption = (f"{record.metric} of every training; bars are means. A line joins the trainings of a seed: where lines "
               "run side by side, seeds do the same to all variants, and pairing takes it out.")  # fmt: skip

    def paint(canvas: Any, theme: Theme) -> None:
        axes = canvas.subplots()
        for seed in seeds:
            values = [scores[name].get(seed, math.nan) for name in names]  # a line breaks where a training is missing
            axes.plot(values, color=theme.muted, linewidth=0.9, alpha=0.75, zorder=2)
            last = max(place for place, value in enumerate(values) if not math.isnan(value))
            axes.annotate(str(seed), (last, values[last]), (7, 0), textcoords="offset points", va="center",
                          fontsize=7.5, color=theme.muted)  # fmt: skip
        for place, name in enumerate(names):
            style, values = line_style(record, name, theme), [*scores[name].values()]
            axes.scatter([place] * len(values), values, s=30, color=style["color"], marker=style["marker"],
                         edgecolors=theme.paper, linewidths=0.6, zorder=3)  # fmt: skip
            mean = statistics.fmean(values)
            axes.plot([place - 0.22, place + 0.22], [mean, mean], color=style["color"], linewidth=2.4)
        turned = sum(len(short(name)) for name in names) > 70
        axes.set_xticks(range(len(names)), map(short, names), rotation=25 if turned else 0,
                        ha="right" if turned else "center", rotation_mode="anchor")  # fmt: skip
        axes.tick_params(axis="x", length=0, labelcolor=theme.ink)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel(record.metric)

    alt = f"Scores of {counted(len(names), 'variant')}, lines join those of the same of {counted(len(seeds), 'seed')}."
    return Figure("seeds", caption, alt, paint, Data(["variant", "seed", record.metric], rows), (7.6, 3.9))
