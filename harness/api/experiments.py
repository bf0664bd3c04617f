"""The experiment and the folder that a call is about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.experiment import CssExperiment
from harness.run_folder import COMMANDS, Kind, RunInfo, named_folder, read_run
from harness.tracking.outbox import require_operations
from harness.tracking.stores import OUTBOX
from harness.trials import Experiment, Value
from trainers.errors import UsageError

Settings = Mapping[str, Value]


def check_register(register: bool, experiment: Experiment) -> None:
    """Refuse to register what no other process could load.

    Raises:
        UsageError: it is asked for, and the experiment is not one of this project's trainer.
    """
    if register and experiment.trainer != "css":
        raise UsageError(
            f"--register must go with a preset of s4, got the experiment {experiment.name}: register its model by hand"
        )


def resumed(storage: Path, name: str | None, kind: Kind) -> tuple[Path, RunInfo]:
    """Return the folder of a run that goes on, and what it began with."""
    if name is None:
        what = COMMANDS[kind][0]
        raise UsageError(f"--resume must come with the --name of {what}, got none: it is that of its folder")
    folder = named_folder(storage, name)
    info = read_run(folder, kind)
    require_operations(folder / OUTBOX)
    return folder, info


def experiment_again(
    given: Experiment | str | None, before: RunInfo, settings: Settings | None, method: str | None = None
) -> Experiment:
    """Return the experiment that a run goes on with: the given one, or the one it began with."""
    if isinstance(given, Experiment):
        return given
    if given is None and before.trainer != "css":
        raise UsageError("a run of an own experiment must go on with it, got none: pass the experiment")
    kept = before.settings if settings is None and method is None else settings
    return CssExperiment.of(given or before.preset, kept, method)


def chosen_experiment(given: Experiment | str, settings: Settings | None, method: str | None = None) -> Experiment:
    """Return the experiment, or that of a preset with settings.

    Raises:
        UsageError: there is no such preset, or settings are given for an experiment that has its own.
    """
    if isinstance(given, str):
        return CssExperiment.of(given, settings, method)
    if settings or method:
        raise UsageError("settings must go with the name of a preset, got an experiment: set them in the experiment")
    return given
