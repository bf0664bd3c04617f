"""The best of a search: its settings as a config file that every command takes for a preset, and its predictions."""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path

from harness.config_file import write_config
from harness.experiment import CssExperiment
from harness.reporting.results import Results
from harness.run_folder import BEST, LATEST, PICTURE, TRIALS, RunInfo, checkpoint_folder
from harness.tuning.config import written_space
from trainers.errors import ConfigError, UsageError


def draw_best(folder: Path, results: Results) -> None:
    """Draw what the best trial of a search makes of dev images beside its checkpoint, where that is and data are.

    Raises:
        OSError: it cannot be written.
    """
    best = results.best
    trial = checkpoint_folder(folder / TRIALS, best.number) if best else folder
    if results.kind != "search" or best is None or not (trial / LATEST).exists() or (trial / PICTURE).exists():
        return
    from harness.models.find import local_run
    from trainers.figure import draw_checkpoint

    with warnings.catch_warnings(), suppress(UsageError):
        warnings.simplefilter("ignore")
        run = local_run(folder, best.number)
        draw_checkpoint(run.config, trial / LATEST, trial / PICTURE)


def write_best(folder: Path, info: RunInfo, results: Results) -> Path | None:
    """Write `best.yaml` into the folder of a search, and return its path.

    None is written where no trial is complete, of an own experiment, which has no preset, and where the preset does not
    make the config of the trial any more: this version has other values, or a variable names another folder.

    Raises:
        OSError: it cannot be written.
    """
    best = results.best
    if best is None or info.kind != "search" or info.trainer != CssExperiment.trainer:
        return None
    settings = {**info.settings, **written_space(info).fixed, **best.values}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said when the search began
        try:
            config_hash = CssExperiment.of(info.preset, settings).base.hash
        except ConfigError:
            return None
    if config_hash != best.config_hash:
        return None
    score = f"{results.metric} {best.best:.4f} at step {best.best_step}"
    notes = [f"Trial {best.number} of {results.name}, the best of {len(results.rows)}: {score}, one seed."]
    write_config(folder / BEST, info.preset, settings, notes)
    return folder / BEST
