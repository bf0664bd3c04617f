"""What trainings read of their data, made sure of before anything starts."""

from __future__ import annotations

from collections.abc import Iterable

from trainers.config import DigitsData, TrainConfig
from trainers.data.splits import open_splits, require_unlabelled, verify
from trainers.data.weak import verify_weak


def verify_needs(config: TrainConfig) -> None:
    """Make sure that all of a config's data can be read, and that there is what its losses need.

    Raises:
        DataError: says which file breaks which rule, or what is missing.
    """
    verify(config.data, needs_unlabelled=config.uses_unlabelled)
    if config.uses_weak:
        verify_weak(config.data)


def verify_more_needs(config: TrainConfig, others: Iterable[TrainConfig]) -> None:
    """Make sure that there is what losses of other configs need, where a verified config does not need it.

    Raises:
        DataError: there are no unlabelled images, or their weak maps are not right.
    """
    known, needs = (
        {(each.data, each.uses_weak) for each in some if each.uses_unlabelled} for some in ([config], others)
    )
    for data, uses_weak in needs - known:
        if not isinstance(data, DigitsData):
            require_unlabelled(data, len(open_splits(data).unlabelled))
        if uses_weak:
            verify_weak(data)
