"""The order of the images, as a function of the step: resuming needs no state."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from trainers.errors import ConfigError, DataError
from trainers.randomness import generator


def batch_indices(length: int, batch: int, seed: int, purpose: str, step: int) -> list[int]:
    """Return the global batch of one step: `batch` indices below `length`.

    The batches of steps 0, 1, 2, ... laid end to end are independent permutations of all indices, one an epoch, so each
    image is read once an epoch. A batch goes on into the next epoch where it does not fit, and may then repeat images.

    Raises:
        DataError: there is nothing to draw from.
    """
    if length < 1:
        raise DataError(f"a batch of {purpose} images needs at least one image, got none: hold fewer images back")
    first = step * batch
    return [_epoch(length, seed, purpose, at // length)[at % length] for at in range(first, first + batch)]


def rank_slice(indices: Sequence[int], rank: int, world_size: int) -> list[int]:
    """Return this rank's contiguous, equal share of a global batch; the shares of all ranks in order are the batch.

    Raises:
        ConfigError: the batch does not divide into equal shares.
    """
    share, rest = divmod(len(indices), world_size)
    if rest:
        raise ConfigError(
            f"a global batch must be a multiple of the ranks, got {len(indices)} images and {world_size} ranks: "
            "change the batch or the ranks"
        )
    return list(indices[rank * share : (rank + 1) * share])


@lru_cache(maxsize=16)  # the current and the next epoch of a few purposes
def _epoch(length: int, seed: int, purpose: str, epoch: int) -> tuple[int, ...]:
    order: list[int] = torch.randperm(length, generator=generator(seed, purpose, epoch)).tolist()
    return tuple(order)
