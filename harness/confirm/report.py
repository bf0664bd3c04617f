"""What a confirmation found: tables for people and files beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.confirm.request import BASELINE, Configuration, Request
from harness.confirm.statistics import choose, verdict
from harness.formats import last_line
from harness.run_folder import write_whole
from harness.statistics.intervals import Interval, paired, t_interval
from harness.tables import Cell, Column, Data, Table, table_csv, table_markdown
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.trials import Trial

FILES = ("confirm.json", "confirm.csv", "confirm.md")
Scores = Mapping[int, float]
"""By seed."""


@dataclass(frozen=True)
class Outcome:
    """What became of a configuration."""

    configuration: Configuration
    dev: Scores
    """At the horizon, of the seeds that reached it."""
    val: Scores = field(default_factory=dict)
    """Of the chosen one and the baseline alone."""
    errors: Mapping[int, str] = field(default_factory=dict)
    """Why, of the seeds that did not reach the horizon."""

    @property
    def label(self) -> str:
        """Name of the line."""
        return self.configuration.label


@dataclass(frozen=True)
class Confirmation:
    """What a confirmation found."""

    name: str
    request: Request
    outcomes: Sequence[Outcome]
    """The baseline first, then as the search ranked them."""
    tracking_uri: str

    @property
    def whole(self) -> dict[str, Outcome]:
        """Configurations that reached the horizon with every seed, by label; the others cannot be compared."""
        return {outcome.label: outcome for outcome in self.outcomes if len(outcome.dev) == len(self.request.seeds)}

    @property
    def chosen(self) -> str | None:
        """Label of the configuration with the highest lower bound on dev; none where none is whole."""
        tuned = {label: outcome.dev for label, outcome in self.whole.items() if label != BASELINE}
        return choose(tuned) if tuned else None

    @property
    def validated(self) -> bool:
        """Whether the validation images have been looked at."""
        return any(outcome.val for outcome in self.outcomes)

    @property
    def val_metric(self) -> str:
        """Name of the objective on the validation images."""
        return "val/" + self.request.metric.partition("/")[2]

    def to_validate(self) -> list[str]:
        """Return the labels of what is to be looked at on the validation images: the chosen one and the baseline."""
        return [label for label in (BASELINE, self.chosen) if label in self.whole and label is not None]

    def difference(self, label: str, on: str) -> Interval | None:
        """Return the paired difference to the baseline, on `dev` or `val`; none where one of both is not known."""
        ours, base = (self.whole.get(name) for name in (label, BASELINE))
        if ours is None or base is None or label == BASELINE:
            return None
        values, others = getattr(ours, on), getattr(base, on)
        return paired(values, others) if values and others else None

    def with_val(self, scores: Mapping[str, Scores]) -> Confirmation:
        """Return the same with scores on the validation images."""
        return replace(
            self, outcomes=[replace(outcome, val=scores.get(outcome.label, {})) for outcome in self.outcomes]
        )


def collect(name: str, request: Request, trials: Sequence[Trial], tracking_uri: str) -> Confirmation:
    """Return what the trials of a confirmation amount to; trial N was run N."""
    dev: dict[str, dict[int, float]] = {item.label: {} for item in request.configurations}
    errors: dict[str, dict[int, str]] = {item.label: {} for item in request.configurations}
    for trial in trials:
        configuration, seed = request.runs[trial.number]
        if trial.state == "COMPLETE":
            dev[configuration.label][seed] = trial.metrics[request.metric]
        else:
            errors[configuration.label][seed] = last_line(trial.error or str(trial.state))
    outcomes = [Outcome(item, dev[item.label], errors=errors[item.label]) for item in request.configurations]
    return Confirmation(name, request, outcomes, tracking_uri)


def lines(found: Confirmation) -> list[str]:
    """Return what the confirmation amounts to, in a few lines."""
    request, chosen = found.request, found.chosen
    said = []
    for outcome in found.outcomes:
        said += [f"{outcome.label} failed with seed {seed}: {why}" for seed, why in outcome.errors.items()]
    if chosen is None:
        return [*said, "nothing is chosen: no configuration reached the horizon with every seed"]
    bound = t_interval([*found.whole[chosen].dev.values()]).low
    said.append(f"chosen: {chosen}, the highest lower bound of {request.metric}, {bound:.4f}")
    on_dev, on_val = found.difference(chosen, "dev"), found.difference(chosen, "val")
    if on_dev is None:
        return [*said, "the published baseline did not reach the horizon with every seed: nothing to compare with"]
    again = ""
    if request.searched_seed in request.seeds and not request.vary_data:
        again = f" (seed {request.searched_seed} is the one that it was found with)"
    on = verdict(on_dev, chosen, request.metric)
    said.append(f"on dev, where it was chosen and looks better than it is: {on}{again}")
    if on_val is not None:
        said.append(f"on val, which decided nothing: {verdict(on_val, chosen, found.val_metric)}")
    return said


def to_table(found: Confirmation) -> Table:
    """Return the table, a row a configuration."""
    metric, val = found.request.metric, found.val_metric
    columns = [Column("configuration"), Column("search", form=".4f"), Column("seeds", align="right"),
               *(Column(title, form=".4f") for title in (metric, "std", "lower bound")),
               Column("- baseline", align="right"), Column(val, form=".4f"), Column("std", form=".4f"),
               Column("- baseline", align="right")]  # fmt: skip
    rows: list[list[Cell]] = []
    for outcome in found.outcomes:
        dev = t_interval([*outcome.dev.values()]) if outcome.label in found.whole else None
        on_val = t_interval([*outcome.val.values()]) if outcome.val else None
        rows.append([
            outcome.label, outcome.configuration.found, f"{len(outcome.dev)}/{len(found.request.seeds)}",
            *((dev.mean, dev.std, dev.low) if dev else (None, None, None)),
            _interval(found.difference(outcome.label, "dev")),
            *((on_val.mean, on_val.std) if on_val else (None, None)),
            _interval(found.difference(outcome.label, "val")),
        ])  # fmt: skip
    chosen = frozenset(index for index, outcome in enumerate(found.outcomes) if outcome.label == found.chosen)
    return Table("confirmation", "", columns, rows, chosen, shown=len(rows))


def to_markdown(found: Confirmation) -> str:
    """Return the table and what it amounts to as Markdown."""
    return f"# {found.name}\n\n{table_markdown(to_table(found))}\n\n" + "".join(f"- {line}\n" for line in lines(found))


def to_csv(found: Confirmation) -> str:
    """Return a line for each run with full precision: what was set and what came of it; missing values are empty."""
    paths = list(dict.fromkeys(path for outcome in found.outcomes for path in outcome.configuration.overrides))
    columns = ["configuration", "trial", "seed", found.request.metric, found.val_metric, "error", *paths]
    rows = [
        [outcome.label, outcome.configuration.trial, seed, outcome.dev.get(seed), outcome.val.get(seed),
         outcome.errors.get(seed), *(outcome.configuration.overrides.get(path) for path in paths)]
        for outcome in found.outcomes for seed in found.request.seeds
    ]  # fmt: skip
    return table_csv(Data(columns, rows))


def to_json(found: Confirmation) -> dict[str, Any]:
    """Return what was found, with what follows from it, as JSON-able values."""
    chosen = found.chosen
    outcomes = []
    for outcome in found.outcomes:
        whole = outcome.label in found.whole
        outcomes.append(
            {
                **asdict(outcome),
                "dev_interval": t_interval([*outcome.dev.values()])._asdict() if whole else None,
                "val_interval": t_interval([*outcome.val.values()])._asdict() if outcome.val else None,
                "dev_difference": _numbers(found.difference(outcome.label, "dev")),
                "val_difference": _numbers(found.difference(outcome.label, "val")),
            }
        )
    return {
        "name": found.name,
        "request": asdict(found.request),
        "outcomes": outcomes,
        "tracking_uri": found.tracking_uri,
        "chosen": chosen,
        "beat_the_noise": _beats(found),
        "lines": lines(found),
    }


def write_confirmation(folder: Path, found: Confirmation) -> None:
    """Write confirm.json, confirm.csv and confirm.md, each whole or not at all; the one that is read again last."""
    texts = (json.dumps(to_json(found), indent=1) + "\n", to_csv(found), to_markdown(found))
    for name, text in [*zip(FILES, texts, strict=True)][::-1]:
        write_whole(folder / name, text)


def read_confirmation(folder: Path) -> Confirmation | None:
    """Return what `write_confirmation` left in the folder; none where it left nothing yet.

    Raises:
        UsageError: something else wrote it.
    """
    path = folder / FILES[0]
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        asked = data["request"]
        items = tuple(Configuration(**item) for item in asked["configurations"])
        request = Request(**{**asked, "configurations": items, "seeds": tuple(asked["seeds"])})
        outcomes = [
            Outcome(item, _by_seed(row["dev"]), _by_seed(row["val"]), _by_seed(row["errors"]))
            for item, row in zip(items, data["outcomes"], strict=True)
        ]
        return Confirmation(data["name"], request, outcomes, data["tracking_uri"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{path} must be that of `s4 confirm`, it is not: {error}") from None


def _by_seed(values: Mapping[str, Any]) -> dict[int, Any]:
    return {int(seed): value for seed, value in values.items()}


def _beats(found: Confirmation) -> bool | None:
    """Return whether the interval on val lies above 0; none where it is not known."""
    difference = found.difference(found.chosen, "val") if found.chosen else None
    return None if difference is None else difference.low > 0


def _numbers(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else interval._asdict()


def _interval(interval: Interval | None) -> str | None:
    return None if interval is None else f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
