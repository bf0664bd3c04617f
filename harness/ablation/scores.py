"""Scores of anybody's trainings as an ablation: from a table or from runs in MLflow, by variant and seed."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from harness.ablation.request import Request, Run
from harness.ablation.results import Ablation, Outcome
from harness.run_folder import RunInfo
from harness.tracking.stores import absolute_uri, asking, find_runs, open_store
from search_spaces.ablation import Variant
from trainers.errors import UsageError

VARIANT, SEED = ("s4.variant", "variant", "method"), ("s4.seed", "seed")
"""Names by which a column, a param or a tag is found, the first that is there."""
Scores = Mapping[str, Mapping[int, float]]
"""By variant and seed; higher is better."""


class Score(NamedTuple):
    """A number of one training."""

    variant: str
    seed: str
    value: str | float
    where: str
    """In the source, for people."""


def ablation_of(name: str, scores: Scores, metric: str, base: str | None = None) -> Ablation:
    """Return an ablation with these scores.

    Args:
        base: the variant that others are compared with; default: the first.

    Raises:
        UsageError: there are less than two variants, the base is none of them, or a score is not finite.
    """
    names = list(scores)
    if len(names) < 2:
        raise UsageError(f"scores must be those of two variants at least, {name} has {', '.join(names) or 'none'}: "
                         "add another")  # fmt: skip
    base = base or names[0]
    if base not in scores:
        raise UsageError(f"--base must be one of the variants ({', '.join(names)}), got {base!r}: choose of them")
    odd = next(((variant, seed) for variant in names for seed, value in scores[variant].items()
                if not math.isfinite(value)), None)  # fmt: skip
    if odd is not None:
        raise UsageError(f"a score must be a finite number, that of {odd[0]} with seed {odd[1]} is not: leave it out")
    runs = tuple(Run(variant, seed) for variant in names for seed in scores[variant])
    info = RunInfo("ablation", name, {}, "", metric, 0, 0, "", {}, trainer="scores")
    variants = tuple(Variant(variant, {}) for variant in [base, *(other for other in names if other != base)])
    request = Request(info, name, "", base, variants, runs, vary_data=False)
    outcomes = [
        Outcome(number, run.variant, run.seed, "COMPLETE", {metric: float(scores[run.variant][run.seed])})
        for number, run in enumerate(runs)
    ]
    return Ablation(name, request, outcomes, metric, "", 0.0, 0.0)


def read_csv(path: Path, metric: str | None = None) -> tuple[Scores, str]:
    """Return the scores of a CSV file with a header, and the name of their column.

    Args:
        metric: the column; default: the only one beside variant and seed, or `score`.

    Raises:
        UsageError: a column is missing, a number is none, or a variant has two scores of a seed.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, skipinitialspace=True)
            columns, rows = [name for name in lines.fieldnames or () if name], list(lines)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"scores must be a CSV file that can be read, {path} is not: {error}") from None
    listed = f"the columns of {path} are {', '.join(columns) or 'none'}"
    variant, seed = (next((name for name in names if name in columns), None) for names in (VARIANT, SEED))
    if variant is None or seed is None:
        raise UsageError(f"scores must have the columns variant and seed, {listed}: name them so")
    others = [name for name in columns if name not in (variant, seed)]
    metric = metric or (others[0] if len(others) == 1 else "score")
    if metric not in others:
        raise UsageError(f"--metric must be one of the columns, got {metric!r}, {listed}: choose of them")
    found = (Score(row[variant] or "", row[seed] or "", row[metric] or "", f"line {at}")
             for at, row in enumerate(rows, start=2) if any(row.values()))  # fmt: skip
    return _by_variant(found, str(path)), metric


def read_mlflow(uri: str, experiment: str, metric: str, variant: str | None, seed: str | None) -> Scores:
    """Return the last values of a metric of an experiment's finished runs.

    Args:
        variant: tag or param that names the variant; default: `s4.variant`, `variant` or `method`.
        seed: the same of the seed; default: `seed`.

    Raises:
        UsageError: there is no such experiment, or no run of it has all three.
    """
    with asking(absolute_uri(uri)):
        client = open_store(uri)
        known = client.get_experiment_by_name(experiment) if client else None
        if client is None or known is None:
            raise UsageError(f"--experiment must be one of {uri}, got {experiment!r}: correct it or --tracking-uri")
        runs = list(find_runs(client, known.experiment_id, "attributes.status = 'FINISHED'"))
    found = []
    for run in runs:
        words = {**run.data.params, **run.data.tags}
        name, number = (next((words[key] for key in keys if key in words), None)
                        for keys in ((variant,) if variant else VARIANT, (seed,) if seed else SEED))  # fmt: skip
        if metric in run.data.metrics and name is not None and number is not None:
            found.append(Score(name, number, run.data.metrics[metric], f"run {run.info.run_id}"))
    if not found:
        raise UsageError(
            f"a finished run of {experiment} must have the metric {metric}, and a tag or a param for its variant and "
            f"its seed, none of {len(runs)} has: name them with --metric, --variant and --seed"
        )
    return _by_variant(sorted(found), experiment)


def _by_variant(found: Iterable[Score], source: str) -> Scores:
    scores, places = dict[str, dict[int, float]](), dict[tuple[str, int], str]()
    for score in found:
        try:
            seed, value = int(score.seed), float(score.value)
        except ValueError:
            raise UsageError(
                f"a seed must be a whole number and a score a number, got {score.seed!r} and {score.value!r} in "
                f"{score.where} of {source}: correct it"
            ) from None
        if (score.variant, seed) in places:
            raise UsageError(
                f"a variant must have one score a seed, {score.variant} with seed {seed} is in "
                f"{places[score.variant, seed]} and {score.where} of {source}: remove one"
            )
        places[score.variant, seed] = score.where
        scores.setdefault(score.variant, {})[seed] = value
    return scores
