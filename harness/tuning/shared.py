"""A driver's part in a study that several drivers work on: where it is, whose trials are whose, what all agree on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from harness.run_folder import RunInfo
from harness.tuning.database import open_database
from harness.tuning.marks import DRIVER
from trainers.errors import UsageError

TERMS = "s4.terms"
"""User attribute of a study that is made whole: on what its drivers agree."""


@dataclass(frozen=True)
class Shared:
    """A driver's part in a study in a database."""

    url: str
    name: str
    driver: str
    """Made once for each folder of a run: hexadecimal digits."""
    terms: Mapping[str, Any] = field(default_factory=dict)
    """What must be the same for all drivers, as JSON-able values."""

    @property
    def words(self) -> str:
        """Where the study is."""
        return f"the study {self.name} at {self.url}"

    def storage(self, lasting: bool = False) -> optuna.storages.BaseStorage:
        """Open the database, for the time of a session or for a few questions.

        Raises:
            UsageError: it cannot be reached.
        """
        return optuna.storages.get_storage(open_database(self.url, lasting))

    def found(self) -> optuna.Study | None:
        """Return the study where it exists, whole or not.

        Raises:
            UsageError: the database cannot be reached.
        """
        with suppress(KeyError):
            return optuna.load_study(study_name=self.name, storage=self.storage())
        return None

    def trains(self, trial: FrozenTrial) -> bool:
        """Return whether a trial is this driver's."""
        return bool(trial.user_attrs.get(DRIVER) == self.driver)

    def check(self, study: optuna.Study) -> None:
        """Refuse to work on a study that means something else.

        Raises:
            UsageError: what differs.
        """
        theirs = study.user_attrs[TERMS]
        for name, ours in self.terms.items():
            if theirs.get(name) != ours:
                raise UsageError(
                    f"drivers of a study must have the same {name.replace('_', ' ')}, {self.words} has "
                    f"{_shown(theirs.get(name))} and this search {_shown(ours)}: make them the same, or take another "
                    "--study-name"
                )


def _shown(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def shared_of(folder: Path, info: RunInfo) -> Shared | None:
    """Return the part of a run in a shared study; none where its study is a file of its own."""
    options = info.request.get("options", {})
    if not options.get("study"):
        return None
    terms = {
        "space": _hash(info.request["space"]), "config": _hash(_without_paths(info.config)), "data": info.data_digest,
        "horizon": info.horizon, "objective": list(options["objective"] or [info.metric]),
        **{name: options[name] for name in ("constraint", "sampler", "grid_points")},
    }  # fmt: skip
    return Shared(options["study"], options["study_name"] or folder.name, info.request["driver"], terms)


def _without_paths(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out where the data lie, which each cluster has elsewhere."""
    data = config.get("data")
    if not isinstance(data, Mapping):
        return config
    return {**config, "data": {name: it for name, it in data.items() if not (isinstance(it, str) and "/" in it)}}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]
