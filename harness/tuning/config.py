"""Configuration of a search: one model of its options, for the command line, for Python and for its `run.yaml`."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from harness.run_folder import RunInfo
from harness.trials import Experiment, Value, checked_sharing
from harness.tuning.database import study_url
from harness.tuning.objectives import Constraint, Objective, parse_constraint, parse_objectives
from search_spaces import Space, SpaceError
from search_spaces.space import parse_space, value_at
from trainers.errors import ConfigError, UsageError
from trainers.methods import with_method
from trainers.overrides import describe

Scheduler = Literal["asha", "hyperband", "median", "pbt", "none"]
Sampler = Literal["tpe", "gp", "cmaes", "nsga2", "random", "grid"]
LASTING = (
    "scheduler", "sampler", "objective", "constraint", "grace_steps", "reduction_factor", "perturb_steps",
    "grid_points", "seed", "warm_start", "stop_collapsed", "study", "study_name",
)  # fmt: skip
"""Options that a search keeps when it goes on; the others may change from session to session."""
HIDDEN = ("stagnation", "save_interval_s", "min_free_gib", "patience_s")
"""Options of Python alone."""
WORKERS = ("--workers", "--workers-per-gang")
"""How the command line calls the workers of a gang; the second is an old name."""


class Abilities(NamedTuple):
    """What a sampler can do, as the installed Optuna has it."""

    several_objectives: bool
    constraints: bool
    """Whether it keeps away from what violates them, or draws without looking at results anyway."""
    warm_start: bool
    """Whether it learns from trials that were added to the study."""
    pruned: bool
    """Whether it learns from trials that were stopped early."""
    startup: int
    """How many trials must be complete before results guide it; until then it draws at random."""
    conditions: str
    """How it draws parameters that exist only under a condition."""


APART = "one by one, at random"
ABILITIES: Mapping[str, Abilities] = {
    "tpe": Abilities(True, True, True, True, 10, "one by one, by their own model"),
    "gp": Abilities(True, True, True, False, 10, APART),
    "cmaes": Abilities(False, False, False, False, 1, f"{APART}, as categorical ones"),
    "nsga2": Abilities(True, True, False, False, 50, APART),
    "random": Abilities(True, True, False, False, 0, "as the others"),
    "grid": Abilities(True, True, False, False, 0, "only in cells where they exist"),
}
"""Samplers by name. NSGA-II's startup is its population: the complete trials of its first generation."""


def check_sampler(name: str, objectives: Sequence[Objective], constrained: bool, warm: bool) -> None:
    """Refuse what a sampler cannot do; `warm` where the search starts from earlier trials.

    Raises:
        UsageError: names the sampler, what it cannot do, and those that can.
    """
    if name not in ABILITIES:
        raise UsageError(f"a sampler must be one of {', '.join(ABILITIES)}, got {name!r}: choose one of them")
    able = ABILITIES[name]
    wishes = [
        (len(objectives) > 1 and not able.several_objectives, "several objectives", "several_objectives"),
        (constrained and not able.constraints, "constraints", "constraints"),
        (warm and not able.warm_start, "earlier trials", "warm_start"),
    ]
    for refused, words, ability in wishes:
        if refused:
            others = ", ".join(other for other, row in ABILITIES.items() if getattr(row, ability))
            raise UsageError(f"with {words} the sampler must be one of {others}, got {name}: choose one of them")
    if name == "cmaes" and importlib.util.find_spec("cmaes") is None:
        raise UsageError("the sampler cmaes must have the package cmaes, it is not installed: pip install cmaes")


class SearchConfig(BaseModel):
    """The options of a search. `SearchConfig.of` refuses in one line; a field's text is its help."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    space: str = Field("css_quick", description="Search space: css, css_quick, encoder, or a YAML file.")
    trials: int = Field(16, ge=1, description="Configurations to try; the first is the baseline.")
    gangs: int | None = Field(None, ge=1, description="Trials that run at once; default: what fits.")
    workers_per_gang: int = Field(
        1, ge=1, json_schema_extra={"flags": [*WORKERS]},
        description="Processes that train one trial together.",
    )  # fmt: skip
    cpus_per_worker: int | None = Field(
        None, ge=1, description="CPUs of each worker, to compute and to decode; default: 1, decoding with up to 8."
    )
    gangs_per_gpu: Annotated[str, BeforeValidator(str)] = Field(
        "1", json_schema_extra={"metavar": "N"},
        description="Trials of one worker that share a GPU; auto: as many as a measurement finds room for.",
    )  # fmt: skip
    scheduler: Scheduler = Field("asha", description="What stops bad trials early.")
    sampler: Sampler = Field("tpe", description="What proposes configurations.")
    objective: tuple[str, ...] = Field(
        (), json_schema_extra={"metavar": "METRIC[:min]"},
        description="What is sought; default: dev/miou. Repeated: the Pareto front.",
    )  # fmt: skip
    constraint: tuple[str, ...] = Field(
        (), json_schema_extra={"metavar": "METRIC<=NUMBER"},
        description="What the sampler learns to keep, also >=. Repeatable.",
    )  # fmt: skip
    grace_steps: int | None = Field(
        None, ge=1, description="Steps before a trial may be stopped; default: a sixth of the horizon."
    )
    reduction_factor: int = Field(3, ge=2, description="One in this many trials passes a rung.")
    perturb_steps: int | None = Field(
        None, ge=1, description="With pbt: steps between two exploits; default: the grace steps."
    )
    grid_points: int = Field(3, ge=1, description="With grid: values of each number.")
    seed: int = Field(0, ge=0, description="Of the sampler; that of trainings is --set seed=...")
    warm_start: str | None = Field(
        None, json_schema_extra={"metavar": "SEARCH"},
        description="Learn from an earlier search: name, folder, mlflow:EXPERIMENT/SEARCH.",
    )  # fmt: skip
    study: str | None = Field(
        None, json_schema_extra={"metavar": "URL"},
        description="Database of a study that several drivers share; default: a file of its own.",
    )  # fmt: skip
    study_name: str | None = Field(None, description="Of the shared study; default: that of the search.")
    stop_collapsed: bool = Field(True, description="Stop a trial whose teacher predicts one class only.")
    terminator: bool = Field(False, description="End when 30 complete trials in a row brought nothing better.")
    max_hours: float | None = Field(
        None,
        gt=0,
        description="End, ready to be resumed, after this much wall clock in all.",
        json_schema_extra={"metavar": "HOURS"},
    )
    max_device_hours: float | None = Field(
        None, gt=0, description="The same, for hours times devices held.", json_schema_extra={"metavar": "HOURS"}
    )
    keep_checkpoints: int = Field(5, ge=0, description="Best trials whose checkpoints stay.")
    max_checkpoint_gib: float | None = Field(
        None, ge=0, description="What all checkpoints together may take.", json_schema_extra={"metavar": "GIB"}
    )
    retries: int = Field(2, ge=0, description="How often a trial whose workers died goes on.")
    hang_minutes: float = Field(
        60.0,
        ge=0,
        description="A gang without a report for this long is started anew; 0: never.",
        json_schema_extra={"metavar": "MINUTES"},
    )
    recycle_after: int = Field(
        200, ge=0, description="Trials after which a gang's processes are started anew; 0: never."
    )
    stagnation: int = Field(30, ge=1, description="Complete trials without a better one that the terminator waits for.")
    save_interval_s: float = Field(
        30.0, ge=0, description="Least time between two checkpoints of a trial; 0 saves at every report."
    )
    min_free_gib: float = Field(0.25, ge=0, description="The search is interrupted when its disk has less.")
    patience_s: float = Field(
        60.0, ge=0, description="How long an interrupted search waits for its trials to be saved."
    )

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Return the options, the others at their defaults.

        Raises:
            UsageError: one does not exist or is out of range, or they do not fit each other; one line.
        """
        if "workers" in options:  # what it is called everywhere else
            options["workers_per_gang"] = options.pop("workers")
        if (threads := options.pop("threads_per_worker", 1)) != 1:  # what it was called in earlier runs
            options.setdefault("cpus_per_worker", threads)
        checked_sharing(options.get("gangs_per_gpu", 1))
        if isinstance(options.get("study"), str):  # not by pydantic, which would show what may hold a password
            options["study"] = study_url(options["study"])
        try:
            return cls(**options)
        except ValidationError as error:
            raise UsageError(describe(error)) from None

    def replaced(self, **options: Any) -> Self:
        """Return the same with other values.

        Raises:
            UsageError: as `of`.
        """
        return self.of(**{**self.model_dump(), **options})

    @model_validator(mode="after")
    def _check(self) -> Self:
        objectives = self.objectives("dev/miou")
        check_sampler(self.sampler, objectives, bool(self.constraints), self.warm_start is not None)
        if self.study_name is not None and self.study is None:
            raise UsageError("--study-name must go with --study URL, which is missing: give it, or leave the name out")
        if self.terminator and len(objectives) > 1:
            raise UsageError(
                f"--terminator must have one objective, got {len(objectives)}: leave it out or name one objective"
            )
        if self.scheduler == "pbt" and (self.sampler != "random" or self.warm_start or len(objectives) > 1):
            raise UsageError(
                "pbt draws a population and changes it by itself: use --sampler random, one objective, no --warm-start"
            )
        return self

    def objectives(self, default: str) -> tuple[Objective, ...]:
        """Return the objectives, the primary one first; the default, maximised, where none was named."""
        return parse_objectives(self.objective or [default])

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """Bounds on a trial's last report."""
        return tuple(parse_constraint(text) for text in self.constraint)

    @property
    def hang_timeout_s(self) -> float | None:
        """How long a gang may train without a report; none: as long as it likes."""
        return 60 * self.hang_minutes or None

    def grace(self, experiment: Experiment) -> int:
        """Return the optimizer steps before a trial may be stopped.

        Raises:
            UsageError: more than the horizon.
        """
        return grace(experiment.horizon, experiment.report_every, self.grace_steps)


def grace(steps: int, every: int, wished: int | None) -> int:
    """Return the steps before a trial may be stopped: as wished, or a sixth of the horizon, rounded up to a report.

    Raises:
        UsageError: more than the horizon.
    """
    if wished is not None and wished > steps:
        raise UsageError(f"--grace-steps must be at most the horizon, {steps} steps, got {wished}: lower it")
    return wished if wished is not None else min(-(-steps // (6 * every)) * every, steps)


def rungs(steps: int, grace_steps: int, reduction_factor: int) -> list[int]:
    """Return the steps at which ASHA decides: the grace period times powers of the factor, below the horizon."""
    rungs = []
    while grace_steps < steps:
        rungs.append(grace_steps)
        grace_steps *= reduction_factor
    return rungs


def extremes(space: Space) -> Iterator[dict[str, Value]]:
    """Yield the overrides of the configurations that a search starts from, and of all edges of its space."""
    for params in (space.baseline_params, *filter(None, [space.ours_params]), *space.edges()):
        yield space.overrides(params)


def written_space(info: RunInfo) -> Space:
    """Return the space of a search that has begun, as its file had it then."""
    name = Path(info.request.get("options", {}).get("space", "space")).stem
    return parse_space(info.request["space"], name)


def recorded_space(info: RunInfo) -> Space:
    """Return the space of a search that has begun, with the baseline that it began with."""
    return written_space(info).starting_from(info.config)


def fit_space(space: Space, experiment: Experiment) -> Space:
    """Return the space with a whole baseline, once the config takes everything that the space can draw.

    What is set by hand may be searched where the file leaves its baseline open: the search starts from it.

    Raises:
        UsageError: a path does not exist, is also set by hand, or a value is refused.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            base, _ = experiment.resolve({})
            if lost := _lost_paths(space, experiment, base):
                raise ConfigError("\n  ".join(["", *lost] if len(lost) > 1 else lost))
            fitted = space.starting_from(base)
            open_paths = fitted.published.keys() - space.published.keys()
            searched = [*extremes(fitted)]
            named = searched if experiment.trainer == "css" else ()  # others may have a path of that name
            ways = {path: "set by a method" for drawn in named for path in with_method(drawn)}
            ways |= {**dict.fromkeys(space.paths, "searched"), **dict.fromkeys(space.fixed, "fixed")}
            both = sorted(experiment.settings.keys() & ways.keys() - open_paths)
            for overrides in searched if not both else ():
                experiment.resolve(overrides)
        except (UsageError, SpaceError) as error:
            raise ConfigError(f"space {space.name} must fit the config: {error}") from None
    if both:
        raise UsageError(
            f"--set and --method must leave alone what the space {space.name} decides, {both[0]} is {ways[both[0]]} "
            "there: remove the setting or take another space"
        )
    return fitted


def _lost_paths(space: Space, experiment: Experiment, base: Mapping[str, Any]) -> list[str]:
    """Return what the config says of paths that it does not have."""
    lost = dict[str, None]()
    for path in {**dict.fromkeys(space.paths), **space.fixed}:
        try:
            value_at(base, path)
        except LookupError:
            try:
                experiment.resolve({**space.fixed, path: None})
            except UsageError as error:
                if "must exist" in str(error):
                    lost[str(error)] = None
    return [*lost]
