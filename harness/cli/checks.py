"""What is checked before anything is started: batches, data, encoder weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.console import Console

if TYPE_CHECKING:
    from trainers.config import TrainConfig


def check_inputs(config: TrainConfig, workers: int) -> None:
    """Make sure that the workers can share the batches and that the data can be read.

    Raises:
        ConfigError, DataError: one line that says what must hold.
    """
    from trainers.data.splits import verify
    from trainers.loader import check_batches

    check_batches(config, workers)
    verify(config.data, needs_unlabelled=config.uses_unlabelled)


def say_weights(config: TrainConfig, console: Console) -> None:
    """Say what of a file of encoder weights fits, where the config names one.

    Raises:
        DataError: the file cannot be read, or fits another network.
    """
    if config.model.arch != "deeplabv3plus":
        return
    from trainers.models.weights import inspect_weights

    report = inspect_weights(config.model)
    if report is not None:
        console.say(str(report))
