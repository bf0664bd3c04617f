"""Request of an ablation: variants times seeds, written down before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from harness.one_driver import is_new
from harness.run_folder import COMMANDS, RunInfo, check_same, kind_of, read_run, write_run
from harness.trials import Experiment, Value
from search_spaces.ablation import AblationPlan, Overrides, Published, PublishedValue, Variant
from trainers.config import TrainConfig
from trainers.errors import ConfigError, UsageError
from trainers.methods import METHOD, with_method
from trainers.overrides import flatten

SEED = "{seed}"
"""In a text that a variant sets: the seed of the run, as in the name of a list of images."""


@dataclass(frozen=True)
class Run:
    """One training of an ablation."""

    variant: str
    seed: int

    @property
    def label(self) -> str:
        """Name for people and in MLflow."""
        return f"{self.variant}, seed {self.seed}"


@dataclass(frozen=True)
class Confirms:
    """The search that an ablation confirms: its baseline and best trials are the variants."""

    search: str
    trials: Mapping[str, int]
    """Numbers of the variants' trials in the search; the baseline's is 0."""
    best: Mapping[str, float | None]
    """Best value of the objective that the search saw of each variant, with one seed."""
    seed: int | None
    """With which the search trained."""


@dataclass(frozen=True)
class Request:
    """An ablation, as it was asked for."""

    info: RunInfo
    """The base config, its data, and by what trainings are watched; `info.request` is what follows here."""
    plan: str
    """Name of the plan."""
    plan_text: str
    """The YAML that it was read from."""
    base: str
    """The variant that others are compared with; of a crossing plan its level, the same in each group."""
    variants: tuple[Variant, ...]
    """All of the plan, in the order of the table."""
    runs: tuple[Run, ...]
    """In the order of training, which is their trial numbers; seeds that are added later come last."""
    vary_data: bool
    """Whether the seed draws the splits of the data, too."""
    confirms: Confirms | None = field(default=None)
    """Of a confirmation: one variant is chosen on dev before the validation images are read."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Hashes of the data of runs that set some of their own, by the label of the run."""
    published: Published | None = None
    """What a paper prints of the variants."""

    @property
    def preset(self) -> str:
        """Name of the experiment."""
        return self.info.preset

    @property
    def settings(self) -> Mapping[str, Value]:
        """What was set by hand, by dotted config path."""
        return self.info.settings

    @property
    def data_digest(self) -> str:
        """Hash of the data that the base config trains and is judged on."""
        return self.info.data_digest

    @property
    def watched(self) -> str:
        """Metric on dev that trainings report: validation images are read once, at the end."""
        return self.info.metric

    @cached_property
    def data(self) -> str:
        """Name of the data set; "" where the experiment names none."""
        return str(self.info.config.get("data", {}).get("name", "")) if self.info.trainer == "css" else ""

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; none of an own experiment."""
        return TrainConfig.model_validate(self.info.config).data.classes if self.info.trainer == "css" else ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of all runs, in the order in which they were asked for."""
        return tuple(dict.fromkeys(run.seed for run in self.runs))

    @property
    def drawn(self) -> tuple[str, ...]:
        """Config paths that are set to the seed."""
        return ("seed", "data.seed") if self.vary_data else ("seed",)

    @cached_property
    def tried(self) -> tuple[Variant, ...]:
        """Variants of which trainings were asked for, in the order of the table: `--only` leaves others out."""
        asked = {run.variant for run in self.runs}
        return tuple(variant for variant in self.variants if variant.name in asked)

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of the variants tried, whose comparisons are apart; one, "", but of a crossing plan."""
        return tuple(dict.fromkeys(variant.group for variant in self.tried))

    @property
    def draws_data(self) -> bool:
        """Whether seeds have labelled images of their own: drawn ones, or a list each."""
        overrides = [pair for variant in self.tried for pair in variant.overrides.items()]
        return self.vary_data or any(path.startswith("data.") and SEED in str(value) for path, value in overrides)

    def variant(self, name: str) -> Variant:
        """Return the variant of this name."""
        return next(variant for variant in self.variants if variant.name == name)

    def base_of(self, name: str) -> str:
        """Return the name of the variant that this one is compared with; of a base its own."""
        group = self.variant(name).group
        return f"{group}/{self.base}" if group else self.base

    def overrides(self, run: Run) -> dict[str, Value]:
        """Return what a run sets: its variant, and its seed wherever a seed is drawn or a text holds `{seed}`."""
        ours = {
            path: value.replace(SEED, str(run.seed)) if isinstance(value, str) else value
            for path, value in self.variant(run.variant).overrides.items()
        }
        return {**ours, **dict.fromkeys(self.drawn, run.seed)}

    def difference(self, name: str) -> dict[str, Value]:
        """Return what a variant sets otherwise than its base variant, by config path; of a base itself nothing.

        A path that one of the two leaves alone counts with its value in the base config.
        """
        ours, base = self.variant(name).overrides, self.variant(self.base_of(name)).overrides
        plain = flatten(self.info.config)
        return {
            path: ours.get(path, plain.get(path))
            for path in dict.fromkeys([*ours, *base])
            if ours.get(path, plain.get(path)) != base.get(path, plain.get(path))
        }

    def difference_text(self, name: str) -> str:
        """Return what a variant sets otherwise than the base, in a line."""
        return ", ".join(f"{path}={value}" for path, value in self.difference(name).items()) or "the base"


def make_request(
    plan: AblationPlan,
    info: RunInfo,
    experiment: Experiment,
    seeds: Sequence[int],
    vary_data: bool,
    only: Sequence[str] = (),
) -> Request:
    """Return a request for the variants of a plan with these seeds, a seed's runs together.

    Methods that variants name are replaced by their settings; what a variant sets beside its method counts.

    Args:
        only: variants to train, the base beside them; none: all.

    Raises:
        UsageError: two variants are the same in this base config, one does not fit it, a seed is there twice, or `only`
            names what is no variant.
    """
    variants = plan.variants
    if experiment.trainer == "css":  # an experiment of one's own may have a path of that name
        variants = tuple(replace(variant, overrides=_with_method(variant, plan.name)) for variant in variants)
    request = Request(info, plan.name, plan.text, plan.base, variants, (), vary_data, published=plan.published)
    request = with_seeds(request, seeds, only)
    _check_variants(request, experiment)
    for named, variant in zip(plan.variants, variants, strict=True):
        if variant is not named and METHOD in named.overrides:
            experiment.resolve(named.overrides)  # which refuses a method without effect
    return request


def _with_method(variant: Variant, plan: str) -> Overrides:
    """Return what a variant sets, with the settings of its method in place of the method's name."""
    try:
        return with_method(variant.overrides)
    except UsageError as error:
        raise ConfigError(f"variant {variant.name!r} of plan {plan} must name a method: {error}") from None


def with_seeds(request: Request, seeds: Sequence[int], only: Sequence[str] = ()) -> Request:
    """Return the request with the runs that these seeds lack added at the end.

    Args:
        only: variants that are to have the seeds, by name, group or level, their bases beside them, for without these
            there are no pairs; none: all.

    Raises:
        UsageError: a seed is there twice, or `only` names what is no variant.
    """
    twice = next((seed for seed in seeds if list(seeds).count(seed) > 1), None)
    if twice is not None:
        raise UsageError(f"--seeds must be different ones, got {twice} twice: remove one")
    words = {item.name: {item.name, item.group, item.level} - {""} for item in request.variants}
    unknown = next((word for word in only if not any(word in names for names in words.values())), None)
    if unknown is not None:
        raise UsageError(f"--only must name variants of the plan ({', '.join(words)}), got {unknown!r}: choose of them")
    wanted = {name for name, names in words.items() if not only or names & set(only)}
    wanted |= {request.base_of(name) for name in wanted}
    chosen = [name for name in words if name in wanted]
    missing = [Run(name, seed) for seed in seeds for name in chosen if Run(name, seed) not in request.runs]
    return replace(request, runs=(*request.runs, *missing))


def with_digests(request: Request, experiment: Experiment) -> Request:
    """Return the request with the hash of the data of each run that does not have those of the base config.

    Raises:
        UsageError: a run has other data now than the request says, or its data cannot be read.
    """
    overrides = {run.label: request.overrides(run) for run in request.runs}
    digests = {
        label: experiment.digest(sets)
        for label, sets in overrides.items()
        if any(path.startswith("data.") for path in sets)
    }
    for label, digest in digests.items():
        before = request.digests.get(label, digest)
        if before != digest:
            raise UsageError(
                f"{COMMANDS[request.info.kind][0]} must go on with the data it began with, the splits of {label} had "
                f"digest {before} and now have {digest}: put the files back, or take another --name"
            )
    return replace(request, digests=digests)


def _check_variants(request: Request, experiment: Experiment) -> None:
    """Resolve every variant's config, which checks it, and see that no two are the same.

    Raises:
        UsageError: which variant.
    """
    hashes: dict[str, str] = {}
    decided = sorted(set(request.settings) & set(request.drawn))
    if decided:
        raise UsageError(f"--set must leave alone what --seeds decide, got {decided[0]}: remove the setting")
    for variant in request.variants:
        clash = sorted({*request.settings, *request.drawn} & set(variant.overrides))
        if clash:
            raise UsageError(
                f"--set and seeds must leave alone what the plan {request.plan} decides, {clash[0]} is set by its "
                f"variant {variant.name!r}: remove the setting or take another plan"
            )
        try:
            _, config_hash = experiment.resolve(request.overrides(Run(variant.name, request.seeds[0])))
        except UsageError as error:
            raise ConfigError(f"variant {variant.name!r} of plan {request.plan} must fit the config: {error}") from None
        if config_hash in hashes:
            raise UsageError(
                f"variants must differ, {variant.name!r} and {hashes[config_hash]!r} of plan {request.plan} give the "
                f"same config with {request.preset}: remove one, or take a preset in which they differ"
            )
        hashes[config_hash] = variant.name


def write_request(folder: Path, request: Request) -> None:
    """Write the request into the folder of the ablation, whole or not at all."""
    confirms, published = request.confirms, request.published
    groups = {variant.name: variant.group for variant in request.variants}
    asked = {
        "plan": request.plan,
        "vary_data": request.vary_data,
        "base": request.base,
        "variants": {variant.name: dict(variant.overrides) for variant in request.variants},
        **({"groups": groups} if any(groups.values()) else {}),
        **(
            {"published": {"of": published.of, "values": {name: [*value] for name, value in published.values.items()}}}
            if published
            else {}
        ),
        **({"digests": dict(request.digests)} if request.digests else {}),
        "runs": [[run.variant, run.seed] for run in request.runs],
        "plan_text": request.plan_text,
        "confirms": None if confirms is None else dict(confirms.__dict__),
    }
    write_run(folder, replace(request.info, request=asked))


def read_request(folder: Path) -> Request:
    """Return the request in the folder of an ablation or a confirmation.

    Raises:
        UsageError: there is none, or this version cannot read it.
    """
    info = read_run(folder, "confirm" if kind_of(folder) == "confirm" else "ablation")
    asked = info.request
    try:
        groups, published = asked.get("groups", {}), asked.get("published")
        if published:
            values = {name: PublishedValue(*value) for name, value in published["values"].items()}
            published = Published(published["of"], values)
        confirms = asked.get("confirms")
        return Request(
            info=replace(info, request={}),
            plan=asked["plan"],
            plan_text=asked["plan_text"],
            base=asked["base"],
            variants=tuple(
                Variant(name, overrides, groups.get(name, "")) for name, overrides in asked["variants"].items()
            ),
            runs=tuple(Run(variant, seed) for variant, seed in asked["runs"]),
            vary_data=asked["vary_data"],
            confirms=Confirms(**confirms) if confirms else None,
            digests=asked.get("digests", {}),
            published=published,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{folder} must hold what s4 ablate wrote, it does not: {error}") from None


def begun(folder: Path, asked: Request) -> Request | None:
    """Return the request that a folder began with if the one that is asked for goes on with it; none for a new folder.

    Raises:
        UsageError: the folder holds something else, or what differs in more than its seeds.
    """
    if is_new(folder):
        return None
    what = "a confirmation" if asked.confirms else "an ablation"
    if kind_of(folder) != asked.info.kind:
        raise UsageError(f"a name must be free, {folder} exists and is no {what.split()[1]}: take another --name")
    before = read_request(folder)
    otherwise = "take another --name"
    check_same(before.info, asked.info, otherwise)
    fixed = ("base", "variants", "vary_data", "confirms", *(("seeds",) if asked.confirms else ()))
    for part in fixed:
        if getattr(before, part) != getattr(asked, part):
            raise UsageError(
                f"{what} must go on as it began, the {part.replace('_', ' ')} of {folder.name} differ now: put the "
                f"plan and the options back, or {otherwise}"
            )
    return replace(before, published=asked.published)
