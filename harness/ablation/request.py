"""What an ablation trains: variants times seeds, written down before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.search.manifest import Origin, check_same_origin, read_begun, write_begun
from search_spaces.ablation import AblationPlan, Variant
from trainers.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from harness.trials import Value
    from trainers.config import TrainConfig

REQUEST = "ablation.yaml"


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
class Request(Origin):
    """An ablation, as it was asked for."""

    plan: str
    """Name of the plan."""
    plan_text: str
    """The YAML that it was read from."""
    base: str
    """The variant that others are compared with."""
    variants: tuple[Variant, ...]
    """In the order of the table."""
    runs: tuple[Run, ...]
    """In the order of training, which is their trial numbers; seeds that are added later come last."""
    vary_data: bool
    """Whether the seed draws the splits of the data, too."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of all runs, in the order in which they were asked for."""
        return tuple(dict.fromkeys(run.seed for run in self.runs))

    @property
    def drawn(self) -> tuple[str, ...]:
        """Config paths that are set to the seed."""
        return ("seed", "data.seed") if self.vary_data else ("seed",)

    def variant(self, name: str) -> Variant:
        """Return the variant of this name."""
        return next(variant for variant in self.variants if variant.name == name)

    def overrides(self, run: Run) -> dict[str, Value]:
        """Return what a run sets: its variant, and its seed wherever a seed is drawn."""
        return {**self.variant(run.variant).overrides, **dict.fromkeys(self.drawn, run.seed)}

    def config_of(self, run: Run) -> TrainConfig:
        """Return the whole config of a run."""
        from trainers.overrides import apply_overrides

        return apply_overrides(self.config, self.overrides(run))

    def difference(self, name: str) -> dict[str, Value]:
        """Return what a variant sets otherwise than the base variant, by config path; of the base itself nothing.

        A path that one of the two leaves alone counts with its value in the base config.
        """
        from trainers.overrides import flatten

        ours, base = self.variant(name).overrides, self.variant(self.base).overrides
        plain = flatten(self.config.model_dump(mode="json"))
        paths = dict.fromkeys([*ours, *base])
        return {
            path: ours.get(path, plain.get(path))
            for path in paths
            if ours.get(path, plain.get(path)) != base.get(path, plain.get(path))
        }


def make_request(
    plan: AblationPlan, origin: Origin, seeds: Sequence[int], vary_data: bool, only: Sequence[str] = ()
) -> Request:
    """Return a request for the variants of a plan with these seeds, a seed's runs together.

    Args:
        only: variants to train, the base beside them; none: all.

    Raises:
        UsageError: two variants are the same in this base config, one does not fit it, a seed is there twice, or `only`
            names what is no variant.
    """
    request = Request(
        **origin.__dict__,
        plan=plan.name,
        plan_text=plan.text,
        base=plan.base,
        variants=plan.variants,
        runs=(),
        vary_data=vary_data,
    )
    request = with_seeds(request, seeds, only)
    _check_variants(request)
    return request


def with_seeds(request: Request, seeds: Sequence[int], only: Sequence[str] = ()) -> Request:
    """Return the request with the runs that these seeds lack added at the end.

    Args:
        only: variants that are to have the seeds, the base beside them, for without it there are no pairs; none: all.

    Raises:
        UsageError: a seed is there twice, or `only` names what is no variant.
    """
    check_seeds(seeds)
    known = [variant.name for variant in request.variants]
    unknown = next((name for name in only if name not in known), None)
    if unknown is not None:
        raise UsageError(f"--only must name variants of the plan ({', '.join(known)}), got {unknown!r}: choose of them")
    chosen = [name for name in known if not only or name in {*only, request.base}]
    missing = [Run(name, seed) for seed in seeds for name in chosen if Run(name, seed) not in request.runs]
    return replace(request, runs=(*request.runs, *missing))


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse a seed that is there twice.

    Raises:
        UsageError: which one.
    """
    twice = next((seed for seed in seeds if list(seeds).count(seed) > 1), None)
    if twice is not None:
        raise UsageError(f"--seeds must be different ones, got {twice} twice: remove one")


def _check_variants(request: Request) -> None:
    """Build every variant's config, which checks it, and see that no two are the same.

    Raises:
        UsageError: which variant.
    """
    seen: dict[str, str] = {}
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
            config = request.config_of(Run(variant.name, request.seeds[0]))
        except ConfigError as error:
            raise ConfigError(f"variant {variant.name!r} of plan {request.plan} must fit the config: {error}") from None
        if config.hash in seen:
            raise UsageError(
                f"variants must differ, {variant.name!r} and {seen[config.hash]!r} of plan {request.plan} give the "
                f"same config with {request.preset}: remove one, or take a preset in which they differ"
            )
        seen[config.hash] = variant.name


def write_request(folder: Path, request: Request) -> None:
    """Write the request into the folder of the ablation, whole or not at all."""
    more = {
        "plan": request.plan,
        "vary_data": request.vary_data,
        "base": request.base,
        "variants": {variant.name: dict(variant.overrides) for variant in request.variants},
        "runs": [[run.variant, run.seed] for run in request.runs],
        "plan_text": request.plan_text,
    }
    write_begun(folder / REQUEST, request, more)


def read_request(folder: Path) -> Request:
    """Return the request in a folder.

    Raises:
        UsageError: there is none, or this version cannot read it.
    """

    def parse(origin: Origin, data: Mapping[str, Any]) -> Request:
        return Request(
            **origin.__dict__,
            plan=data["plan"],
            plan_text=data["plan_text"],
            base=data["base"],
            variants=tuple(Variant(name, overrides) for name, overrides in data["variants"].items()),
            runs=tuple(Run(variant, seed) for variant, seed in data["runs"]),
            vary_data=data["vary_data"],
        )

    return read_begun(folder / REQUEST, "an ablation", "s4 ablate", parse)


def begun(folder: Path, asked: Request) -> Request | None:
    """Return the request that a folder began with if the one that is asked for goes on with it; none for a new folder.

    Raises:
        UsageError: the folder holds something else, or an ablation that differs in more than its seeds.
    """
    if not folder.exists():
        return None
    if not (folder / REQUEST).exists():
        raise UsageError(f"a name must be free, {folder} exists and is no ablation: take another --name")
    before = read_request(folder)
    otherwise = "take another --name"
    check_same_origin(before, asked.config, asked.data_digest, f"the ablation {folder.name}", otherwise)
    for what in ("base", "variants", "vary_data"):
        if getattr(before, what) != getattr(asked, what):
            raise UsageError(
                f"the ablation {folder.name} must go on as it began, its {what.replace('_', ' ')} differ now: put the "
                f"plan and the options back, or {otherwise}"
            )
    return before
