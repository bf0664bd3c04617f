"""What a confirmation trains: configurations of a search times seeds, written down before it starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.run_folder import write_whole
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.reporting.results import Results, Row
    from harness.search.manifest import Manifest
    from harness.trials import Value

REQUEST = "request.json"
BASELINE = "baseline"


@dataclass(frozen=True)
class Configuration:
    """One line of the report."""

    label: str
    """`baseline`, or the trial of the search: `trial 9`."""
    trial: int
    """Number in the search; 0 is the baseline's."""
    found: float | None
    """What the search saw of it: the best value of the objective over its reports, with one seed."""
    overrides: Mapping[str, Value]
    """Of the search's base config."""


@dataclass(frozen=True)
class Request:
    """A confirmation, as it was asked for."""

    search: str
    preset: str
    metric: str
    base_hash: str
    """Hash of the search's base config."""
    searched_seed: int
    """With which the search trained."""
    seeds: tuple[int, ...]
    vary_data: bool
    """Whether the seed draws the splits of the data, too."""
    configurations: tuple[Configuration, ...]
    """The baseline first, then the search's best."""

    @property
    def runs(self) -> list[tuple[Configuration, int]]:
        """Configurations and seeds in the order of training, all configurations of a seed together."""
        return [(configuration, seed) for seed in self.seeds for configuration in self.configurations]

    @property
    def drawn(self) -> tuple[str, ...]:
        """Config paths that are set to the seed."""
        return ("seed", "data.seed") if self.vary_data else ("seed",)

    def overrides(self, run: int) -> dict[str, Value]:
        """Return what a run sets: its configuration, and its seed."""
        configuration, seed = self.runs[run]
        return {**configuration.overrides, **dict.fromkeys(self.drawn, seed)}


def make_request(results: Results, manifest: Manifest, top: int, seeds: tuple[int, ...], vary_data: bool) -> Request:
    """Choose the best configurations of a search, and put the published baseline before them.

    Raises:
        UsageError: the search has fewer complete trials, seeds are too few or the same, or a trial cannot be repeated.
    """
    check_seeds(seeds)
    best = candidates(results, top)
    from trainers.overrides import apply_overrides

    space, baseline = manifest.space, results.baseline
    found = [(BASELINE, 0, baseline, space.baseline)]
    found += [(f"trial {row.number}", row.number, row, {**space.fixed, **row.values}) for row in best]
    chosen = []
    for label, number, row, overrides in found:
        again = apply_overrides(manifest.config, overrides).hash
        if row is not None and again != row.config_hash:
            raise UsageError(
                f"trial {number} of {results.name} must be the same now as then, its config had hash "
                f"{row.config_hash} and has {again}: confirm with the version of s4 that searched"
            )
        chosen.append(Configuration(label, number, row.best if row is not None else None, overrides))
    return Request(
        search=results.name,
        preset=manifest.preset,
        metric=manifest.metric,
        base_hash=manifest.config.hash,
        searched_seed=manifest.config.seed,
        seeds=seeds,
        vary_data=vary_data,
        configurations=tuple(chosen),
    )


def check_seeds(seeds: tuple[int, ...]) -> None:
    """Refuse seeds that allow no interval.

    Raises:
        UsageError: there are fewer than two, or one is there twice.
    """
    if len(set(seeds)) < len(seeds):
        twice = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise UsageError(f"--seeds must be different ones, got {twice} twice: remove one")
    if len(seeds) < 2:
        raise UsageError(f"--seeds must be at least two, for an interval, got {seeds[0]}: for example --seeds 0,1,2")


def candidates(results: Results, top: int) -> list[Row]:
    """Return the rows of the best complete trials that differ from the baseline and from each other.

    Raises:
        UsageError: results are not those of a search, or it has too few such trials.
    """
    if results.kind != "search":
        raise UsageError(f"a search must be confirmed, {results.name} is a {results.kind}: take one that s4 tune made")
    seen = {results.baseline.config_hash} if results.baseline else set()
    found = []
    for row in results.rows:
        if row.state == "COMPLETE" and row.number != 0 and row.config_hash not in seen:
            seen.add(row.config_hash)
            found.append(row)
    if not found:
        raise UsageError(
            f"a search must have complete trials beside the baseline to be confirmed, {results.name} has none: let it "
            "go on, with more --trials"
        )
    if top > len(found):
        raise UsageError(
            f"--top must be at most the {len(found)} complete trials of {results.name} that differ from the baseline "
            f"and each other, got {top}: lower it"
        )
    return found[:top]


def check_begun(folder: Path, request: Request) -> None:
    """Make sure that what was begun in this folder, if anything, is the same confirmation.

    Raises:
        UsageError: the folder holds something else, or another confirmation.
    """
    path = folder / REQUEST
    if not folder.exists():
        return
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UsageError(f"a name must be free, {folder} exists and is no confirmation: take another --name") from None
    asked = as_plain(request)
    if begun != asked:
        other = ", ".join(key for key in asked if not isinstance(begun, dict) or begun.get(key) != asked[key])
        raise UsageError(
            f"a confirmation must go on as it began, {folder.name} began with other {other}: give the same options, or "
            "take another --name"
        )


def write_request(folder: Path, request: Request) -> None:
    """Write the request into the folder of the confirmation, whole or not at all."""
    write_whole(folder / REQUEST, json.dumps(as_plain(request), indent=1) + "\n")


def as_plain(request: Request) -> dict[str, Any]:
    """Return the request as lists, dictionaries and scalars, as it is read from a file."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(request)))
    return plain
