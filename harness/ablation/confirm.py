"""Confirmation of a search: an ablation of its baseline, of the space's own values and of its best trials.

The variant with the highest lower bound of the 95 % t-interval on dev is chosen; only then are the chosen variant, the
baseline and the space's own values evaluated on the validation images. The difference on dev is optimistic, that on val
decided nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.ablation.request import Confirms, Request, make_request
from harness.ablation.results import OURS, Ablation
from harness.run_folder import RunInfo
from harness.statistics.intervals import Interval, t_interval
from harness.tables import Cell, Column, Table
from harness.trials import Experiment, Value
from search_spaces import Space
from search_spaces.ablation import AblationPlan, Variant
from trainers.errors import UsageError

BASELINE = "baseline"
Trials = Sequence[tuple[int, float | None, Mapping[str, Value]]]
"""Number, best value and overrides of the trials that are confirmed, the best first."""


def confirmation(
    search: str,
    info: RunInfo,
    experiment: Experiment,
    space: Space,
    baseline: float | None,
    trials: Trials,
    seeds: Sequence[int],
    vary_data: bool,
    ours: int | None = None,
) -> Request:
    """Return the request of a confirmation: the published baseline, and the given trials.

    Args:
        info: of the confirmation.
        baseline: best value that the search saw of the baseline.
        ours: number of the trial that has the space's own values (`Space.ours`), if it is among the given ones.

    Raises:
        UsageError: seeds are fewer than two, or one is there twice.
    """
    if len(seeds) < 2:
        raise UsageError(f"--seeds must be at least two, for an interval, got {seeds[0]}: for example --seeds 0,1,2")
    names = {OURS if trial[0] == ours else f"trial {trial[0]}": trial for trial in trials}
    variants = [Variant(BASELINE, space.baseline), *(Variant(name, found[2]) for name, found in names.items())]
    confirms = Confirms(
        search,
        {BASELINE: 0, **{name: number for name, (number, _, _) in names.items()}},
        {BASELINE: baseline, **{name: best for name, (_, best, _) in names.items()}},
        info.config.get("seed"),
    )
    plan = AblationPlan(f"confirmation of {search}", f"the search {search}", None, BASELINE, tuple(variants), "")
    bare = replace(
        info, settings={key: value for key, value in info.settings.items() if key not in ("seed", "data.seed")}
    )
    request = make_request(plan, bare, experiment, seeds, vary_data)
    return replace(request, info=info, confirms=confirms)


def verdict(on: Interval, chosen: str, metric: str) -> str:
    """Return whether tuning beat the noise, in one line; `on`: the chosen variant's difference to the baseline."""
    numbers = f"{metric} {on.mean:+.4f} [{on.low:+.4f}, {on.high:+.4f}]"
    if on.low > 0:
        return f"tuning beat the noise: {chosen} - baseline is {numbers}"
    if on.high < 0:
        return f"the baseline is better: {chosen} - baseline is {numbers}"
    return f"tuning did not beat the noise: {chosen} - baseline is {numbers}, which holds 0"


def verdict_lines(ablation: Ablation) -> list[str]:
    """Return what a confirmation amounts to, in a few lines."""
    request, chosen, dev = ablation.request, ablation.chosen, ablation.request.watched
    assert request.confirms is not None  # noqa: S101  # narrows the type: only confirmations have verdicts
    failed = [
        f"{run.variant} failed with seed {run.seed}: {run.error or run.state}"
        for run in ablation.outcomes
        if run.state != "COMPLETE"
    ]
    if chosen is None:
        return [*failed, "nothing is chosen: no configuration reached the horizon with every seed"]
    bound = t_interval([*ablation.scores(chosen, dev).values()]).low
    lines = [*failed, f"chosen: {chosen}, the highest lower bound of {dev}, {bound:.4f}"]
    on_dev = ablation.difference(chosen, dev) if ablation.is_whole(BASELINE) else None
    if on_dev is None:
        return [*lines, "the baseline did not reach the horizon with every seed: nothing to compare with"]
    again = ""
    if request.confirms.seed in request.seeds and not request.vary_data:
        again = f" (seed {request.confirms.seed} is the one that it was found with)"
    lines.append(f"on dev, where it was chosen and looks better than it is: {verdict(on_dev, chosen, dev)}{again}")
    on_val = ablation.difference(chosen, ablation.metric)
    if on_val is not None:
        lines.append(f"on val, which decided nothing: {verdict(on_val, chosen, ablation.metric)}")
    to_ours = ablation.difference(chosen, ablation.metric, OURS)
    if to_ours is not None and chosen != OURS:
        holds = ", which holds 0" if to_ours.low <= 0 <= to_ours.high else ""
        lines.append(
            f"on val, to this project's values: {chosen} - {OURS} is {ablation.metric} {_interval(to_ours)}{holds}"
        )
    return lines


def confirmation_table(ablation: Ablation) -> Table:
    """Return the table of a confirmation, a row a configuration."""
    request, dev, val = ablation.request, ablation.request.watched, ablation.metric
    assert request.confirms is not None  # noqa: S101  # narrows the type, as above
    columns = [Column("configuration", weight=2), Column("search", form=".4f"), Column("seeds", align="right"),
               Column(dev, form=".4f", weight=1), Column("std", form=".4f"),
               Column("lower bound", form=".4f", weight=2), Column("- baseline", align="right"),
               Column(val, form=".4f", weight=2), Column("std", form=".4f"),
               Column("- baseline", align="right", weight=2)]  # fmt: skip
    rows: list[list[Cell]] = []
    for name in (variant.name for variant in request.variants):
        whole, on_val = ablation.is_whole(name), [*ablation.scores(name, val).values()]
        on_dev = [*ablation.scores(name, dev).values()]
        spread, spread_val = t_interval(on_dev) if whole else None, t_interval(on_val) if len(on_val) > 1 else None
        rows.append([
            name, request.confirms.best.get(name), f"{len(on_dev)}/{len(request.seeds)}",
            *((spread.mean, spread.std, spread.low) if spread else (None, None, None)),
            _interval(ablation.difference(name, dev) if whole and ablation.is_whole(BASELINE) else None),
            *((spread_val.mean, spread_val.std) if spread_val else (None, None)),
            _interval(ablation.difference(name, val)),
        ])  # fmt: skip
    chosen = frozenset(index for index, variant in enumerate(request.variants) if variant.name == ablation.chosen)
    return Table("confirmation", "", columns, rows, chosen, shown=len(rows))


def _interval(interval: Interval | None) -> str | None:
    return None if interval is None else f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
