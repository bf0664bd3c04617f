"""Results of an ablation: the outcome of each run, and the comparison of its variants."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.ablation.request import Request, read_request
from harness.formats import last_line
from harness.run_folder import write_whole
from harness.statistics.compare import Comparison, compare_groups
from harness.statistics.intervals import Interval, Summary, paired, summary, t_interval
from harness.trials import Trial
from trainers.errors import UsageError

RESULTS = "ablation.json"
OURS = "ours"
"""Of a confirmation: the variant with the values that the search's space has beside the published ones."""


@dataclass(frozen=True)
class Outcome:
    """What became of one run."""

    number: int
    """Of its trial."""
    variant: str
    seed: int
    state: str
    """`COMPLETE`, or how else its trial ended; `MISSING` where it was not trained yet."""
    metrics: Mapping[str, float]
    """Of its last report, and `val/...`; of a complete run only."""
    error: str | None = None
    """Why, where it failed."""


@dataclass(frozen=True)
class Ablation:
    """An ablation, whole or as far as it is."""

    name: str
    request: Request
    outcomes: Sequence[Outcome]
    """By number."""
    metric: str
    """The one that variants are judged by: `val/miou`."""
    tracking_uri: str
    elapsed_s: float
    """Wall clock of all sessions of training."""
    device_s: float
    """The same times the devices held."""

    @property
    def others(self) -> list[str]:
        """Names of the variants beside the base of which trainings were asked for, in the order of the table."""
        return [item.name for item in self.request.tried if item.name != self.request.base_of(item.name)]

    @cached_property
    def metrics(self) -> list[str]:
        """Names of all metrics that a complete run ended with, in alphabetical order."""
        return sorted({name for outcome in self.outcomes for name in outcome.metrics} - {"step", "finished"})

    def scores(self, variant: str, metric: str) -> dict[int, float]:
        """Return what a variant's complete runs ended with, by seed; without those that did not report it."""
        return {
            outcome.seed: outcome.metrics[metric]
            for outcome in self.outcomes
            if outcome.variant == variant and outcome.state == "COMPLETE" and metric in outcome.metrics
        }

    def summary(self, variant: str, metric: str) -> Summary:
        """Return mean, spread and interval of a metric over a variant's seeds."""
        return summary([*self.scores(variant, metric).values()])

    def compare(self, metric: str) -> dict[str, Comparison]:
        """Return the comparison of each of `others` with its base, by name, over paired seeds.

        These are the comparisons that p-values are adjusted for: one whose trainings all failed is among them, a
        variant that nobody asked for is not.
        """
        groups: dict[str, dict[str, Mapping[int, float]]] = {}
        for name in self.others:
            groups.setdefault(self.request.base_of(name), {})[name] = self.scores(name, metric)
        return compare_groups([(self.scores(base, metric), variants) for base, variants in groups.items()])

    def is_whole(self, variant: str) -> bool:
        """Return whether a variant reached the horizon with every seed."""
        return len(self.scores(variant, self.request.watched)) == len(self.request.seeds)

    @property
    def chosen(self) -> str | None:
        """Of a confirmation: the variant with the highest lower bound on dev, beside the base; of equal ones the first.

        Only variants that are complete with every seed are looked at. The lower bound, and not the mean, prefers what
        is good with every seed to what is very good with one.
        """
        if self.request.confirms is None:
            return None
        whole = [name for name in self.others if self.is_whole(name)]
        bounds = {name: t_interval([*self.scores(name, self.request.watched).values()]).low for name in whole}
        return max(bounds, key=lambda name: bounds[name]) if bounds else None

    @property
    def to_evaluate(self) -> list[Outcome]:
        """Complete runs to evaluate after training: all; of a confirmation of the chosen one, the base and ours."""
        wanted = {variant.name for variant in self.request.tried}
        if self.request.confirms is not None:
            compared = {self.chosen, self.request.base, OURS} if self.chosen else set()
            wanted = {name for name in compared & wanted if self.is_whole(name)}
        return [run for run in self.outcomes if run.state == "COMPLETE" and run.variant in wanted]

    def difference(self, variant: str, metric: str, to: str | None = None) -> Interval | None:
        """Return a variant's paired difference `to` another, by default its base; none without two shared seeds."""
        of_base = to or self.request.base_of(variant)
        ours, base = self.scores(variant, metric), self.scores(of_base, metric)
        return paired(ours, base) if variant != of_base and len(ours.keys() & base.keys()) > 1 else None

    @property
    def beat_the_noise(self) -> bool | None:
        """Of a confirmation: whether the interval of the difference on val lies above 0; none: not known."""
        on_val = self.difference(self.chosen, self.metric) if self.chosen else None
        return None if on_val is None else on_val.low > 0

    def to_dict(self) -> dict[str, Any]:
        """Return the table and every run's outcome as JSON-able values."""
        request = self.request
        return {
            "name": self.name,
            "plan": request.plan,
            "preset": request.preset,
            "base": request.base,
            "metric": self.metric,
            "seeds": list(request.seeds),
            "vary_data": request.vary_data,
            "steps": request.info.horizon,
            "variants": self.rows(),
            "dev": self.rows(request.watched),
            "winner": self.winner,
            "winners": self.winners,
            "confirms": request.confirms.search if request.confirms else None,
            "chosen": self.chosen,
            "beat_the_noise": self.beat_the_noise,
            "elapsed_s": self.elapsed_s,
            "device_s": self.device_s,
            "tracking_uri": self.tracking_uri,
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
        }

    @property
    def winner(self) -> str | None:
        """The variant that leads; none where nothing is complete, and of a crossing plan, of whose groups each has one.

        It may be noise: see the verdicts.
        """
        return self.winners.get("")

    @property
    def winners(self) -> dict[str, str]:
        """The variant that leads, by group, without groups in which nothing is complete.

        By the mean difference to the base over the seeds that both have, for variants may have different seeds, some
        easier than others; by the mean where the base has none.
        """
        winners, compared = {}, self.compare(self.metric)
        for group in self.request.groups:
            names = [variant.name for variant in self.request.tried if variant.group == group]
            known = {name: self.summary(name, self.metric).mean for name in names}
            if known[self.request.base_of(names[0])] is not None:
                known = {name: compared[name].difference if name in compared else 0.0 for name in names}
            leading = {name: value for name, value in known.items() if value is not None}
            if leading:
                winners[group] = max(leading, key=lambda name: leading[name])
        return winners

    def best_run(self, variant: str) -> Outcome | None:
        """Return the run of a variant that has the best score."""
        scores = self.scores(variant, self.metric)
        best = max(scores, key=lambda seed: scores[seed], default=None)
        return next((run for run in self.outcomes if (run.variant, run.seed) == (variant, best)), None)

    def rows(self, metric: str | None = None) -> list[dict[str, Any]]:
        """Return variant, n, mean, std, difference, ci_low, ci_high, p and more of a metric, a row a variant tried.

        Of the base variant, and wherever too few seeds allow no such number, it is None.

        Args:
            metric: default: the one that variants are judged by.
        """
        metric = metric or self.metric
        compared, table = self.compare(metric), []
        for variant in self.request.tried:
            over = self.summary(variant.name, metric)
            row: dict[str, Any] = {"variant": variant.name, "group": variant.group, "n": over.n}
            row |= {"mean": over.mean, "std": over.std}
            versus = compared.get(variant.name)
            for key in ("difference", "ci_low", "ci_high", "p", "p_t", "smallest_p"):
                row[key] = getattr(versus, key) if versus is not None else None
            row["pairs"] = versus.n if versus is not None else None
            row["verdict"] = str(versus.verdict) if versus is not None else None
            row["scores"] = {str(seed): value for seed, value in sorted(self.scores(variant.name, metric).items())}
            table.append(row)
        return table


def collect(request: Request, trials: Mapping[int, Trial], late: Mapping[int, Mapping[str, float]]) -> list[Outcome]:
    """Return what became of every run of the request; trial N is run N.

    Args:
        trials: those that began, by number.
        late: metrics that were found after training, by number.
    """
    outcomes = []
    for number, run in enumerate(request.runs):
        trial = trials.get(number)
        if trial is None:
            outcomes.append(Outcome(number, run.variant, run.seed, "MISSING", {}))
            continue
        whole = str(trial.state) == "COMPLETE"
        metrics = {**trial.metrics, **late.get(number, {})} if whole else {}
        error = last_line(trial.error) if trial.error else None
        outcomes.append(Outcome(number, run.variant, run.seed, str(trial.state), metrics, error))
    return outcomes


def write_results(folder: Path, ablation: Ablation) -> None:
    """Write `ablation.json` into the folder, whole or not at all."""
    write_whole(folder / RESULTS, json.dumps(ablation.to_dict(), indent=1) + "\n")


def read_results(folder: Path) -> Ablation:
    """Return what `write_results` left in the folder.

    Raises:
        UsageError: there is nothing, or something else wrote it.
    """
    path = folder / RESULTS
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        outcomes = [Outcome(**outcome) for outcome in data["outcomes"]]
        more = {key: data[key] for key in ("name", "metric", "tracking_uri", "elapsed_s", "device_s")}
    except FileNotFoundError:
        raise UsageError(f"results must lie in {path}, there are none: has the ablation trained anything?") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"results must be those of `s4 ablate`, {path} is not: {error}") from None
    return Ablation(**more, request=read_request(folder), outcomes=outcomes)
