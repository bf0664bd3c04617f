"""Evaluation of an ablation's runs, and the tables and lines of its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ray
import ray.exceptions

from harness.ablation.confirm import confirmation_table, verdict_lines
from harness.ablation.request import Request
from harness.ablation.results import Ablation, Outcome, collect
from harness.cluster import Allocation
from harness.console import Console, counting
from harness.formats import counted
from harness.ledger import LEDGER, read_ledger
from harness.run_folder import TRIALS, checkpoint_folder
from harness.statistics.compare import Verdict, in_words
from harness.tables import Cell, Column, Table
from harness.trials import Experiment, Trial, Value

DECIMALS = 4
STYLES = {Verdict.BETTER: "bold green", Verdict.WORSE: "red"}


def gather(
    folder: Path, request: Request, metric: str, tracking_uri: str, late: Mapping[int, Mapping[str, float]]
) -> Ablation:
    """Return an ablation as far as its ledger and the evaluations tell.

    Args:
        late: metrics of evaluations, by the number of the run.
    """
    history = read_ledger(folder / LEDGER)
    outcomes = collect(request, history.trials, late)
    return Ablation(folder.name, request, outcomes, metric, tracking_uri, history.elapsed_s, history.device_s)


def evaluate_runs(
    folder: Path,
    experiment: Experiment,
    request: Request,
    runs: Sequence[Outcome],
    allocation: Allocation,
    console: Console,
) -> dict[int, dict[str, float]]:
    """Evaluate complete runs on the cluster, each on what a worker has; return their late metrics by number.

    A Ray session must be active.

    Raises:
        UsageError: as `Experiment.evaluate`.
    """
    if type(experiment).evaluate is Experiment.evaluate:  # it has no late metrics
        return {}
    work = ray.remote(_evaluate).options(
        num_cpus=allocation.worker.cpus, num_gpus=1 if allocation.worker.use_gpu else 0
    )
    shared, late = ray.put(experiment), dict[int, dict[str, float]]()
    pending = {
        work.remote(
            shared, request.overrides(request.runs[run.number]), checkpoint_folder(folder / TRIALS, run.number)
        ): run.number
        for run in runs
    }  # fmt: skip
    with counting(console, "evaluated", len(runs)) as count:
        while pending:
            (done, *_), _ = ray.wait(list(pending), num_returns=1)
            try:
                late[pending.pop(done)] = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None  # in the words of the task, without Ray's traceback
            count()
    return late


def _evaluate(experiment: Experiment, overrides: Mapping[str, Value], folder: Path) -> dict[str, float]:
    return experiment.evaluate(overrides, folder)


def to_table(ablation: Ablation) -> Table:
    """Return the table of the metric that variants are judged by, a row a variant, in the order of the plan."""
    request, metric = ablation.request, ablation.metric
    if request.confirms is not None:
        return confirmation_table(ablation)
    watched = [] if metric == request.watched else [request.watched]
    columns = [Column("variant", weight=2), Column("seeds", align="right"),
               Column(metric, form=f".{DECIMALS}f", weight=2), Column("std", form=f".{DECIMALS}f"),
               Column(f"- {request.base}", form=f"+.{DECIMALS}f", weight=2),
               Column("95 % interval", align="right", weight=1), Column("p", form=".2g", weight=1),
               Column("verdict", weight=2),
               *(Column(name, form=f".{DECIMALS}f") for name in watched)]  # fmt: skip
    compared = ablation.compare(metric)
    rows, styles = list[list[Cell]](), dict[int, str]()
    for index, name in enumerate(variant.name for variant in request.tried):
        over, versus = ablation.summary(name, metric), compared.get(name)
        difference: list[Cell] = [None, None, None, "the base"]
        if versus is not None:
            interval = None
            if versus.ci_low is not None and versus.ci_high is not None:
                interval = f"[{versus.ci_low:+.{DECIMALS}f}, {versus.ci_high:+.{DECIMALS}f}]"
            p = versus.p if versus.p is not None else versus.p_t
            difference = [versus.difference, interval, p, str(versus.verdict)]
            styles[index] = STYLES.get(versus.verdict, "")
        more = [ablation.summary(name, other).mean for other in watched]
        rows.append([name, f"{over.n}/{len(request.seeds)}", over.mean, over.std, *difference, *more])
    names = [variant.group for variant in request.tried]
    gaps = frozenset(index for index in range(1, len(names)) if names[index] != names[index - 1])
    return Table("ablation", "", columns, rows, styles=styles, gaps=gaps)


def lines(ablation: Ablation) -> list[str]:
    """Return what the table amounts to: how to read it, each verdict in words, what failed."""
    request = ablation.request
    if request.confirms is not None:
        return verdict_lines(ablation)
    lines = verdicts(ablation)
    lines += [
        f"{run.variant} with seed {run.seed} {'is missing' if run.state == 'MISSING' else 'failed'}: "
        f"{run.error or 'it was not trained'}"
        for run in ablation.outcomes
        if run.state != "COMPLETE"
    ]
    if len({frozenset(run.seed for run in request.runs if run.variant == item.name) for item in request.tried}) > 1:
        lines.append(
            "variants were asked for with different seeds: read the differences, which are paired, not the means"
        )
    again = "" if request.draws_data else ", all on the same split"
    if again and len(request.groups) > 1:
        again += " of their group"
    lines.append(
        f"{counted(len(request.seeds), 'seed')}{again}; trained in {ablation.elapsed_s:.0f} s, "
        f"{ablation.device_s / 3600:.2f} device-hours"
    )
    return lines


def verdicts(ablation: Ablation) -> list[str]:
    """Return each verdict in words, and what p is."""
    compared = ablation.compare(ablation.metric)
    lines = [f"{name}: {in_words(versus, DECIMALS)}" for name, versus in compared.items()]
    few = max((versus.n for versus in compared.values()), default=0)
    if compared and all(versus.p is None for versus in compared.values()):
        smallest = min(versus.smallest_p for versus in compared.values())
        lines.append(
            f"p is that of the paired t-test, Holm-adjusted over {counted(len(compared), 'variant')}; the exact "
            f"sign-flip test cannot fall below {smallest:.2g} with {few} seeds and is left out"
        )
    elif compared:
        lines.append(f"p is that of the exact sign-flip test, Holm-adjusted over {counted(len(compared), 'variant')}")
    return lines


def runs_table(request: Request, trials: Mapping[int, Trial]) -> Table:
    """Return every run of an ablation, whether it is done, and what its variant sets."""
    columns = [*map(Column, ("run", "variant", "seed", "state")),
               Column(f"differs from {request.base} in", prose=True)]  # fmt: skip
    rows: list[list[Cell]] = []
    for number, run in enumerate(request.runs):
        state = str(trials[number].state) if number in trials else "to train"
        words = request.difference_text(run.variant) if run.variant != request.base_of(run.variant) else None
        rows.append([number, run.variant, run.seed, state, words])
    return Table("runs", "", columns, rows)
