"""The table of an ablation for a terminal, and what it amounts to in a few lines."""

from __future__ import annotations

from harness.ablation.results import Ablation
from harness.statistics.compare import Verdict, in_words
from harness.tables import Cell, Column, Table

DECIMALS = 4
STYLES = {Verdict.BETTER: "bold green", Verdict.WORSE: "red"}


def to_table(ablation: Ablation) -> Table:
    """Return the table of the metric that variants are judged by, a row a variant, in the order of the plan."""
    request, metric = ablation.request, ablation.metric
    columns = [Column("variant"), Column("seeds", align="right"), Column(metric, form=f".{DECIMALS}f"),
               Column("std", form=f".{DECIMALS}f"), Column(f"- {request.base}", form=f"+.{DECIMALS}f"),
               Column("95 % interval", align="right"), Column("p", form=".2g"), Column("verdict"),
               Column("dev/miou", form=f".{DECIMALS}f")]  # fmt: skip
    compared = ablation.compare(metric)
    rows, styles = list[list[Cell]](), dict[int, str]()
    for index, name in enumerate(variant.name for variant in request.variants):
        over, dev, versus = ablation.summary(name, metric), ablation.summary(name, "dev/miou"), compared.get(name)
        difference: list[Cell] = [None, None, None, "the base"]
        if versus is not None:
            interval = None
            if versus.ci_low is not None and versus.ci_high is not None:
                interval = f"[{versus.ci_low:+.{DECIMALS}f}, {versus.ci_high:+.{DECIMALS}f}]"
            p = versus.p if versus.p is not None else versus.p_t
            difference = [versus.difference, interval, p, str(versus.verdict)]
            styles[index] = STYLES.get(versus.verdict, "")
        rows.append([name, f"{over.n}/{len(request.seeds)}", over.mean, over.std, *difference, dev.mean])
    return Table("ablation", "", columns, rows, styles=styles)


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
