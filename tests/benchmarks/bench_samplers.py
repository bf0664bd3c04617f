"""Which sampler and which scheduler? Searches of recorded learning curves, at equal budget.

    python tests/benchmarks/bench_samplers.py [--seeds 20] [--samplers tpe,gp] [--schedulers asha] [--json]

`curves.csv`, which `record_curves.py` writes, holds real trainings of `digits_css` at random settings. A trial follows
the recorded curve whose settings are nearest to its own, so the scores, their noise and the curves that cross are those
of trainings. Searcher, samplers and schedulers are this project's; `stock` is Ray's OptunaSearch with TPE under Ray's
ASHA. All have 4 virtual gangs and begin with the same two trials. The budget counts steps, in full trainings.

    regret      best score of any recorded curve at the horizon, minus that of the best trial which reached it of those
                that the sampler drew (without the two that all begin with)
    difference  regret of tpe with asha minus that of the row, seed by seed, with a t-interval of 95 %: above zero, the
                row is better
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from numpy.typing import NDArray
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from record_curves import EVERY, FILE, HORIZON, SPACE
from virtual_tune import Curve, Searcher, VirtualTune

from harness.gangs.tune_trial import OBJECTIVE, STEP
from harness.statistics.intervals import t_interval
from harness.tuning.objectives import Objective
from harness.tuning.samplers import make_sampler
from harness.tuning.schedulers import SCHEDULERS, make_scheduler
from harness.tuning.searcher import TruthfulOptunaSearch
from search_spaces import Parameter, Space, load_space

MIOU = Objective("dev/miou", "max")
SAMPLERS = ("tpe", "gp", "cmaes", "random")
RULES = ("asha", "hyperband", "median", "none")
STOCK = ("stock", "asha")
REFERENCE = ("tpe", "asha")
GANGS = 4
GRACE = 2 * EVERY
"""Steps: ASHA's rungs are then at 30, 90 and, but for the horizon, no more."""
MARKS = (8, 16, 32)
"""Budgets at which is scored, in full trainings."""
Row = tuple[str, str]


class Curves:
    """Recorded trainings of a space."""

    def __init__(self, space: Space, file: Path = FILE) -> None:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        self.space = space
        kinds = {item.name: str if item.kind == "categorical" else float for item in space.parameters}
        self._places = np.array([self._place({name: kind(row[name]) for name, kind in kinds.items()}) for row in rows])
        self.scores = np.array([[float(value) for name, value in row.items() if name not in kinds] for row in rows])

    @property
    def best(self) -> float:
        """Largest score at the horizon."""
        return float(self.scores[:, -1].max())

    def nearest(self, params: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return the scores of the training whose settings are nearest to raw params."""
        distances = np.square(self._places - self._place(params)).sum(axis=1)
        scores: NDArray[np.float64] = self.scores[int(distances.argmin())]
        return scores

    def _place(self, params: Mapping[str, Any]) -> NDArray[np.float64]:
        return np.concatenate([_axis(parameter, params[parameter.name]) for parameter in self.space.parameters])


def _axis(parameter: Parameter, raw: Any) -> list[float]:
    """Return where a raw value lies: a number in [0, 1] as it is drawn; choices are a corner each, farther apart."""
    if parameter.kind == "categorical":
        return [float(raw == choice) for choice in parameter.raw_choices]
    scale = np.log if parameter.log or parameter.one_minus else np.asarray
    low, high, value = (float(scale(number)) for number in (*parameter.raw_range, raw))
    return [(value - low) / (high - low)]


class Outcome(NamedTuple):
    """One search: regret at each of the marks, the trials it began, and the seconds of a suggestion."""

    regrets: Sequence[float]
    trials: int
    suggest_s: float


class Timed:
    """A searcher whose suggestions are timed."""

    def __init__(self, searcher: Any) -> None:
        self.searcher, self.seconds = searcher, 0.0
        self.on_trial_result, self.on_trial_complete = searcher.on_trial_result, searcher.on_trial_complete

    def suggest(self, trial_id: str) -> Any:
        """Draw a trial."""
        began = time.perf_counter()
        drawn = self.searcher.suggest(trial_id)
        self.seconds += time.perf_counter() - began
        return drawn


def make(row: Row, seed: int, space: Space) -> tuple[Searcher, Any]:
    """Return searcher and scheduler of a row of the table."""
    sampler, scheduler = row
    if row == STOCK:
        starts = [space.baseline_params, *([space.ours_params] if space.ours_params else [])]
        searcher = OptunaSearch(
            space=lambda trial: {"params": space.suggest(trial)}, metric=OBJECTIVE, mode="max",
            sampler=optuna.samplers.TPESampler(seed=seed), points_to_evaluate=starts,
        )  # fmt: skip
        # Ray's own default for the factor is 4; here it is that of the other rows.
        asha = ASHAScheduler(
            time_attr=STEP, metric=OBJECTIVE, mode="max", max_t=HORIZON, grace_period=GRACE, reduction_factor=3
        )
        return searcher, asha
    truthful = TruthfulOptunaSearch(
        space=space, resolve=lambda overrides: (overrides, ""), storage=optuna.storages.InMemoryStorage(),
        study_name="samplers", sampler=make_sampler(sampler, seed, space=space, objectives=(MIOU,)),
        checkpoints=Path("/nowhere"),
    )  # fmt: skip
    return truthful, make_scheduler(scheduler, objective=MIOU, horizon=HORIZON, grace_steps=GRACE)


def search(row: Row, seed: int, file: Path = FILE) -> Outcome:
    """Search once."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", module="optuna")
    space = load_space(SPACE)
    curves = Curves(space, file)

    def train(number: int, params: Mapping[str, Any]) -> Curve:
        scores = curves.nearest(params)
        return lambda step: float(scores[step // EVERY - 1])

    searcher, scheduler = make(row, seed, space)
    timed = Timed(searcher)
    pauses = SCHEDULERS[row[1]].pauses
    starts = 1 + (space.ours_params is not None)
    tune = VirtualTune(timed, scheduler, train, horizon=HORIZON, report_every=EVERY, gangs=GANGS, pauses=pauses)
    regrets: list[float] = []
    for spent in tune.play():
        if spent >= MARKS[len(regrets)] * HORIZON:
            scores = [trial.value for trial in tune.finished() if trial.number >= starts]
            regrets.append(curves.best - max(scores, default=0.0))
        if len(regrets) == len(MARKS):
            break
    return Outcome(regrets, len(tune.trials), timed.seconds / len(tune.trials))


def print_table(figures: Mapping[Row, Sequence[Outcome]]) -> None:
    """Print a line a row, as Markdown."""
    print(f"| sampler | scheduler | {' | '.join(f'regret at {mark}' for mark in MARKS)} | difference at {MARKS[-1]} |"
          " trials | ms a suggestion |")  # fmt: skip
    print("|---" * (5 + len(MARKS)) + "|")
    reference = [outcome.regrets[-1] for outcome in figures.get(REFERENCE, ())]
    for row, outcomes in figures.items():
        regrets = [f"{statistics.fmean(one.regrets[place] for one in outcomes):.4f}" for place in range(len(MARKS))]
        told = ""
        if reference and row != REFERENCE:
            paired = [best - one.regrets[-1] for best, one in zip(reference, outcomes, strict=True)]
            difference = t_interval(paired)
            told = f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
        trials = statistics.fmean(one.trials for one in outcomes)
        seconds = statistics.fmean(one.suggest_s for one in outcomes)
        print(f"| {' | '.join((*row, *regrets, told))} | {trials:.0f} | {1000 * seconds:.0f} |")


def main(arguments: list[str] | None = None) -> int:
    """Search with each row and seed, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else there")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--samplers", type=lambda text: text.split(","), default=SAMPLERS)
    parser.add_argument(
        "--schedulers", type=lambda text: text.split(","), default=("asha", "hyperband", "median", "none")
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes; changes no figure but times")
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error(f"--seeds must be at least 2 for an interval, got {options.seeds}")
    if not FILE.exists():
        parser.error(f"{FILE.name} must be there, it is not: run record_curves.py, most of an hour on 2 cores")
    rows = [STOCK, *((sampler, scheduler) for sampler in options.samplers for scheduler in options.schedulers)]
    figures: dict[Row, list[Outcome]] = {}
    with ProcessPoolExecutor(options.jobs) as pool:
        for row in rows:
            began = time.monotonic()
            figures[row] = list(pool.map(search, [row] * options.seeds, range(options.seeds)))
            print(f"{' '.join(row)}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({" ".join(row): [one._asdict() for one in outcomes] for row, outcomes in figures.items()}))
    else:
        print_table(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
