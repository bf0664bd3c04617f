"""Parameters of a search: importances, parallel coordinates, and the objective over each of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import optuna
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from harness.reporting.axes import Axis, axis_of, guessed_axis
from harness.reporting.document import Block, Data, Figure, Note, Section
from harness.reporting.figures import baseline_handle, best_handle, best_star, legend, state_handles, thinned
from harness.reporting.record import Record
from harness.reporting.results import Row, short
from harness.reporting.themes import MARKERS, Theme
from harness.trials import Trial
from harness.tuning.warm_start import distribution_of
from search_spaces import Space

FEWEST = 10
"""Trials below which nothing is said of importance."""
TARGET = 5
"""Trials that count as good ones, at least; Optuna advises it."""
MOST_AXES = 12
"""Parameters that figures show; of more, the most important ones."""
CROWD = 100
"""Trials from which on marks are small."""
ROOM = 18
"""Letters that categories below a slice have room for."""
ABSENT = -0.14
"""Where an axis shows that a trial does not have the parameter."""


class Importance(NamedTuple):
    """Shares of the importance of all parameters, by config path, highest first."""

    value: str
    """Which value is explained."""
    trials: int
    shares: Mapping[str, float]


def parameters(record: Record, rungs: Sequence[int]) -> Section:
    """Return the section; the scheduler decides at the steps `rungs`."""
    ranked, blocks = importances(record, rungs), list[Block]()
    if ranked:
        blocks += [_importance_figure(ranked), Note(_caution(ranked), "caution")]
    elif record.results.rows:
        why = ("the space is not known" if record.space is None else
               f"that takes {FEWEST} trials with values, and good ones that differ from the others")  # fmt: skip
        blocks.append(Note(f"Importances cannot be told: {why}.", "missing"))
    rows = [row for row in record.results.rows if row.best is not None and math.isfinite(row.best) and row.values]
    axes = _axes(record, rows, ranked)
    if rows and axes:
        if len(axes) < len(record.results.paths):
            left_out = sorted(set(record.results.paths) - {axis.path for axis in axes})
            blocks.append(Note(f"Figures leave out the parameters {', '.join(f'`{path}`' for path in left_out)}."))
        blocks += [_parallel(record, rows, axes), _slices(record, rows, axes)]
    else:
        blocks.append(Note("No trial has both parameters and a value, so there is nothing to draw.", "missing"))
    return Section("Parameters", blocks)


def _axes(record: Record, rows: Sequence[Row], ranked: Sequence[Importance]) -> list[Axis]:
    paths = [path for path in record.results.paths if any(path in row.values for row in rows)]
    if len(paths) > MOST_AXES:
        by_importance = dict.fromkeys([*(ranked[0].shares if ranked else ()), *paths])
        chosen = [path for path in by_importance if path in paths][:MOST_AXES]
        paths = [path for path in paths if path in chosen]
    known = {parameter.path: parameter for parameter in record.space.parameters} if record.space else {}
    values = {path: [row.values[path] for row in rows if path in row.values] for path in paths}
    return [axis_of(known[path], values[path]) if path in known else guessed_axis(path, values[path]) for path in paths]


def importances(record: Record, rungs: Sequence[int]) -> list[Importance]:
    """Return the importances that can be told: at the horizon, and at a rung, which trials that were stopped saw too.

    Of the rungs, which are steps, that counts which most trials reached.
    """
    space = record.space
    if space is None:
        return []
    trials = record.trials.values()
    explained = {"best value of complete trials": _finite(
        (trial, trial.best.get("value", math.nan)) for trial in trials if trial.state == "COMPLETE"
    )}  # fmt: skip
    at_rungs = {rung: _finite((trial, dict(trial.values).get(rung, math.nan)) for trial in trials) for rung in rungs}
    if at_rungs:
        rung = max(at_rungs, key=lambda step: (len(at_rungs[step]), step))
        explained[f"value at step {rung}"] = at_rungs[rung]
    enough = {value: pairs for value, pairs in explained.items() if len(pairs) >= FEWEST}
    ranked = [Importance(value, len(pairs), _shares(space, pairs, record.maximise)) for value, pairs in enough.items()]
    return [importance for importance in ranked if importance.shares]


def _finite(pairs: Iterable[tuple[Trial, float]]) -> list[tuple[Trial, float]]:
    return [(trial, value) for trial, value in pairs if math.isfinite(value)]


def _shares(space: Space, pairs: Sequence[tuple[Trial, float]], maximise: bool) -> dict[str, float]:
    """Return PED-ANOVA's shares of importance by config path; nothing where good trials and others lie alike."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    by_name = {parameter.name: parameter for parameter in space.parameters}
    study = optuna.create_study(direction="maximize" if maximise else "minimize")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for trial, value in pairs:
            params = {name: trial.params[name] for name in by_name if name in trial.params}
            distributions = {name: distribution_of(by_name[name]) for name in params}
            try:
                study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
            except ValueError:  # a scheduler has moved it out of the space
                continue
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile(len(study.trials)))
        varied = _varied(study.trials)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator, params=varied, normalize=False)
    total = sum(shares.values())  # 0 where good trials and others lie alike: Optuna would call that equal shares
    return {by_name[name].path: share / total for name, share in shares.items()} if total > 0 else {}


def _varied(trials: Sequence[Any]) -> list[str]:
    """Return the parameters that took more than one value; the estimator would give one that never moved a share."""
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    return [name for name in names if len({trial.params[name] for trial in trials if name in trial.params}) > 1]


def quantile(trials: int) -> float:
    """Return the share of trials that count as good ones: a tenth, or more where that would be less than `TARGET`."""
    return min(0.5, max(0.1, TARGET / max(trials, 1)))


def _caution(ranked: Sequence[Importance]) -> str:
    fewest = min(importance.trials for importance in ranked)
    text = (
        "Importance says how much the good trials differ from all trials in a parameter, not in which direction. "
        "Shares add up to 1 even where nothing matters, and a parameter that the sampler has settled on can look "
        "important. "
    )
    return text + (f"With {fewest} trials it is rough: a different seed of the sampler may give another order."
                   if fewest < 50 else "Trials of a sampler that learns are not spread evenly.")  # fmt: skip


def _importance_figure(ranked: Sequence[Importance]) -> Figure:
    paths = list(dict.fromkeys(path for importance in ranked for path in importance.shares))[:MOST_AXES]
    labels = short(paths)
    highest = ", ".join(f"{label} {ranked[0].shares.get(path, 0):.2f}"
                        for label, path in zip(labels[:3], paths[:3], strict=True))  # fmt: skip

    def paint(canvas: Any, theme: Theme) -> None:
        axes, thick = canvas.subplots(), 0.8 / len(ranked)
        for index, (value, trials, by_path) in enumerate(ranked):
            places = [-row - (index - (len(ranked) - 1) / 2) * thick for row in range(len(paths))]
            shares = [by_path.get(path, 0.0) for path in paths]
            bars = axes.barh(places, shares, thick * 0.92, color=theme.series[index],
                             label=f"{value} ({trials} trials)")  # fmt: skip
            axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=7.5, color=theme.muted)
        axes.set_yticks([-row for row in range(len(paths))], labels)
        axes.tick_params(axis="y", labelcolor=theme.ink, length=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("share of the importance")
        axes.set_xlim(0, 1.12 * max(share for importance in ranked for share in importance.shares.values()))
        legend(canvas, axes.get_legend_handles_labels()[0])

    rows = [(value, trials, path, share) for value, trials, shares in ranked for path, share in shares.items()]
    return Figure(
        "importance",
        "Importance of each parameter (PED-ANOVA): how much it decided whether a trial was among the good ones.",
        f"Bars of importance; the highest are {highest}.",
        paint,
        Data(["value", "trials", "path", "importance"], rows),
        (7.6, 1.5 + 0.34 * len(paths) * (1 if len(ranked) == 1 else 1.35)),
    )


def shade(good: float) -> float:
    """Return the place on a theme's ramp of a value, 0 the worst to 1 the best: the worst must be seen, too."""
    return 0.4 + 0.55 * good


def _parallel(record: Record, rows: Sequence[Row], axes: Sequence[Axis]) -> Figure:
    results, labels = record.results, short([axis.path for axis in axes])
    values = [row.best for row in rows if row.best is not None]
    low, high = min(values), max(values)
    absent = any(axis.path not in row.values for axis in axes for row in rows)
    chosen, words = thinned([row.number for row in rows], {0})

    def course(row: Row) -> list[float]:
        places = [axis.place(row.values[axis.path]) if axis.path in row.values else None for axis in axes]
        value = 0.5 if high == low or row.best is None else (row.best - low) / (high - low)
        return [*(ABSENT if place is None else place for place in places), value]

    def paint(canvas: Any, theme: Theme) -> None:
        panel, ramp, xs = canvas.subplots(), colormaps[theme.ramp], range(len(axes) + 1)
        ordered = sorted(
            [row for row in rows if row.number in chosen], key=lambda row: row.best or 0.0, reverse=not record.maximise
        )
        for complete in (False, True):
            lines = [course(row) for row in ordered if (row.state == "COMPLETE") is complete]
            good = [line[-1] if record.maximise else 1 - line[-1] for line in lines]
            panel.add_collection(LineCollection(
                [[*zip(xs, line, strict=True)] for line in lines], colors=[ramp(shade(share)) for share in good],
                linewidths=1.5 if complete else 0.9, alpha=0.95 if complete else 0.8, zorder=2 + complete,
            ))  # fmt: skip
        handles = [Line2D([], [], color=ramp(shade(good)), linewidth=2.2, label=label)
                   for good, label in ((1, "best values"), (0.5, "middling"), (0, "worst"))]  # fmt: skip
        if results.baseline is not None and results.baseline in rows:
            panel.plot(xs, course(results.baseline), color=theme.ink, linestyle="--", linewidth=1.5, zorder=4)
            handles.append(baseline_handle(theme, results.baseline_name))
        for x, axis in enumerate(axes):
            _scale(panel, x, axis.ticks(), theme)
        _scale(panel, len(axes), [(0.0, f"{low:.3g}"), (0.5, f"{(low + high) / 2:.3g}"), (1.0, f"{high:.3g}")], theme)
        if absent:
            panel.annotate("not\nthere", (0, ABSENT), (-6, 0), textcoords="offset points", ha="right", va="center",
                           fontsize=7, color=theme.muted)  # fmt: skip
        panel.set_xticks(xs, [*labels, f"best {results.metric}"], rotation=0 if len(axes) < 7 else 28,
                         ha="center" if len(axes) < 7 else "right")  # fmt: skip
        panel.tick_params(axis="x", length=0, labelcolor=theme.ink, pad=6)
        panel.set_yticks([])
        panel.grid(visible=False)
        panel.set_xlim(-0.35, len(axes) + 0.35)
        panel.set_ylim(ABSENT - 0.06 if absent else -0.05, 1.05)
        panel.spines[:].set_visible(False)
        legend(canvas, handles)

    data = [(row.number, row.state, *(row.values.get(axis.path) for axis in axes), row.best) for row in rows]
    return Figure(
        "parallel-coordinates",
        f"Each line is a trial{f', of {words}' if words else ''}: its parameters, and the best value it reported. Thin "
        "lines did not reach the horizon.",
        f"Parallel coordinates of {len(rows)} trials over {', '.join(labels)} and the best {results.metric}.",
        paint,
        Data(["trial", "state", *(axis.path for axis in axes), "best"], data),
        (7.6 if len(axes) < 8 else 9.6, 4.2),
    )


def _scale(panel: Any, x: int, ticks: Sequence[tuple[float, str]], theme: Theme) -> None:
    panel.plot([x, x], [0, 1], color=theme.muted, linewidth=1, zorder=5)
    halo = [withStroke(linewidth=2.5, foreground=theme.paper)]
    for place, label in ticks:
        panel.plot([x - 0.02, x + 0.02], [place, place], color=theme.muted, linewidth=1, zorder=5)
        panel.annotate(label, (x, place), (5, 0), textcoords="offset points", va="center", fontsize=7.5,
                       color=theme.ink, zorder=6, path_effects=halo)  # fmt: skip


def _slices(record: Record, rows: Sequence[Row], axes: Sequence[Axis]) -> Figure:
    results, labels = record.results, short([axis.path for axis in axes])
    columns = min(3, len(axes))
    height = -(-len(axes) // columns)

    def paint(canvas: Any, theme: Theme) -> None:
        panels = canvas.subplots(height, columns, squeeze=False, sharey=True).ravel()
        for panel, axis, label in zip(panels, axes, labels, strict=False):
            _slice(panel, record, rows, axis, theme)
            panel.set_title(label + {"log": " (log)", "one minus": " (log of 1 - it)"}.get(axis.scale, ""))
        for panel in panels[len(axes) :]:
            panel.remove()
        for panel in panels[: len(axes) : columns]:
            panel.set_ylabel(f"best {results.metric}", fontsize=8)
        handles = state_handles([row.state for row in rows], theme)
        handles += [best_handle(theme)] if results.best in rows else []
        legend(
            canvas, [*handles, *([baseline_handle(theme, results.baseline_name)] if results.baseline in rows else [])]
        )

    data = [(row.number, row.state, axis.path, row.values[axis.path], row.best)
            for axis in axes for row in rows if axis.path in row.values]  # fmt: skip
    return Figure(
        "slices",
        f"Best {results.metric} over each parameter. The sampler moves all of them at once, so a trend in one may be "
        "due to another. The dashed line crosses at the baseline's value.",
        f"Scatter plots of the best {results.metric} over {', '.join(labels)}.",
        paint,
        Data(["trial", "state", "path", "value", "best"], data),
        (7.6, 0.6 + 2.1 * height),
    )


def _slice(panel: Any, record: Record, rows: Sequence[Row], axis: Axis, theme: Theme) -> None:
    best, baseline = record.results.best, record.results.baseline
    places = {row.number: axis.place(row.values[axis.path]) for row in rows if axis.path in row.values}
    for state in dict.fromkeys(row.state for row in rows):
        points = [(place, row.best) for row in rows if row.state == state and row is not best
                  and (place := places.get(row.number)) is not None]  # fmt: skip
        if points:
            panel.scatter(*zip(*points, strict=True), marker=MARKERS[state], color=theme.states[state],
                          s=20 if len(rows) < CROWD else 10, edgecolors=theme.paper, linewidths=0.4,
                          zorder=2 + (state == "COMPLETE"))  # fmt: skip
    if best is not None and (at_best := places.get(best.number)) is not None:
        best_star(panel, at_best, best.best or 0.0, theme)
    published = None if baseline is None else axis.place(baseline.values.get(axis.path))
    if published is not None:
        panel.axvline(published, color=theme.ink, linestyle="--", linewidth=0.9, zorder=2)
    ticks = axis.ticks()
    turned = axis.scale == "choices" and sum(len(label) for _, label in ticks) > ROOM
    panel.set_xticks([place for place, _ in ticks], [label for _, label in ticks], rotation=25 if turned else 0,
                     ha="right" if turned else "center", rotation_mode="anchor")  # fmt: skip
    panel.set_xlim(-0.05, 1.05)
