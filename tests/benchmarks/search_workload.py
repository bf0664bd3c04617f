"""What both searches of `bench_search.py` train, and what the steps are timed on: digits, short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.experiment import CssExperiment
from search_spaces import Space, load_space
from trainers.config import TrainConfig
from trainers.overrides import apply_overrides
from trainers.presets import load_preset

PLACES = 2
"""Trials at a time, one worker and one thread each: what two cores hold."""
HORIZON = 81
"""Optimizer steps of a full trial: nine reports, a few seconds of work."""
REPORT_EVERY = 9
GRACE = 27
"""Steps before ASHA may stop a trial; its rungs are here and at the horizon. Earlier, all trials are equal."""
REDUCTION = 3
METRIC = "dev/miou"
SEED = 0
"""Of the sampler, in both searches."""

_SEARCHED = {"data.image_size": 16, "data.grid": 1, "data.fill": 1.0, "data.dev": 128, "data.unlabelled": 512}
"""One digit a picture: trials differ after some tens of steps."""
_TIMED = {"data.dev": 32, "data.unlabelled": 128}
"""The evaluation is kept short and the step is left as in the preset."""


def searched_config() -> TrainConfig:
    """Return what the trials of both searches start from: `digits_css` on single digits, few steps."""
    return _config({**_SEARCHED, "schedule.steps": HORIZON, "schedule.evaluate_every": REPORT_EVERY})


def timed_config(blocks: int, steps: int) -> TrainConfig:
    """Return what steps are timed with: `digits_css`, a report after each of the blocks of `steps` steps."""
    return _config({**_TIMED, "schedule.steps": blocks * steps, "schedule.evaluate_every": steps})


def _config(settings: dict[str, Any]) -> TrainConfig:
    return apply_overrides(load_preset("digits_css"), {"evaluation.quality_images": 0, **settings})


def experiment() -> CssExperiment:
    """Return what the trials of both searches train."""
    return CssExperiment(searched_config(), "digits_css")


def space() -> Space:
    """Return what both searches change; trial 0 is its published baseline."""
    return load_space(Path(__file__).parent / "search_space.yaml")
