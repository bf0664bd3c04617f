"""Batches on a rank's device: of a training step, whose images are a function of the step, and of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from trainers.augment.maps import IMAGE, LABEL, WEAK, Maps
from trainers.augment.pipeline import labelled_augment, weak_augment
from trainers.config import IGNORE, TrainConfig
from trainers.data.source import ImageSource, Samples
from trainers.data.splits import Splits
from trainers.data.weak import open_weak
from trainers.errors import ConfigError, DataError
from trainers.randomness import generator
from trainers.run import Run
from trainers.targets import Batch, StepContext
from trainers.transfer import send


class _Stored(NamedTuple):
    """A rank's share of a global batch as it is stored, on the CPU."""

    labelled: Samples
    unlabelled: Samples | None


class Group(NamedTuple):
    """Images of one size, on the device."""

    images: Tensor
    """[N, 3, H, W] in [0, 1]."""
    labels: Tensor
    """[N, H, W] int64, 255 where there is none."""


class BatchLoader:
    """Reads a rank's batches, step by step: while one step computes, a thread reads the next one's images.

    Batches are those of `load_batch`; steps may be asked for in any order, the next one is the one that is ready.

        with BatchLoader(splits, config, run.rank, run.world_size, run.device) as loader:
            batch = loader.load(step)
    """

    def __init__(self, splits: Splits, config: TrainConfig, rank: int, world_size: int, device: torch.device) -> None:
        self._splits, self._config, self._device = splits, config, device
        self._rank, self._world_size = rank, world_size
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._ahead: tuple[int, Future[_Stored]] | None = None

    def load(self, step: int) -> Batch:
        """Return the batch of a step, and start to read that of the next one, unless this is the last.

        Raises:
            DataError: an image or mask of this step cannot be read or breaks a rule.
        """
        ahead, self._ahead = self._ahead, None
        stored = ahead[1].result() if ahead is not None and ahead[0] == step else self._read(step)
        if step + 1 < self._config.schedule.steps:
            self._ahead = step + 1, self._thread.submit(self._read, step + 1)
        return _to_batch(stored, self._config, self._context(step), self._device)

    def close(self) -> None:
        """End the thread; what it read is dropped, with its error if it met one."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> BatchLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, step: int) -> _Stored:
        stored = _read(self._splits, self._config, self._context(step))
        if self._device.type != "cuda":
            return stored
        return _Stored(stored.labelled.pinned(), stored.unlabelled and stored.unlabelled.pinned())

    def _context(self, step: int) -> StepContext:
        return StepContext(self._config.seed, step, self._rank, self._world_size)


def load_batch(splits: Splits, config: TrainConfig, context: StepContext, device: torch.device) -> Batch:
    """Return this rank's share of the global batch of a step, weakly augmented: a pure function of its arguments.

    Raises:
        DataError: an image or mask cannot be read or breaks a rule.
    """
    return _to_batch(_read(splits, config, context), config, context, device)


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


def rank_groups(source: ImageSource, indices: Sequence[int], batch: int, run: Run) -> Iterator[Group]:
    """Yield this rank's share of some images: every `world_size`-th one, so that each is seen by one rank.

    Images are fetched `batch` at a time; those of a batch that share a size make a group. Padding thus reaches no
    network, and no image's prediction depends on the size of another.
    """
    for _, group in numbered_groups(source, indices, batch, run):
        yield group


def numbered_groups(
    source: ImageSource, indices: Sequence[int], batch: int, run: Run
) -> Iterator[tuple[list[int], Group]]:
    """Yield the groups of `rank_groups`, each with the indices of its images in the source."""
    mine = indices[run.rank :: run.world_size]
    for start in range(0, len(mine), batch):
        chosen = mine[start : start + batch]
        samples = source.fetch(chosen)
        for height, width in torch.unique(samples.sizes, dim=0).tolist():
            rows = (samples.sizes == torch.tensor([height, width])).all(dim=1)
            group = Group(
                to_images(samples.images[rows, :, :height, :width], run.device),
                send(samples.labels[rows, :height, :width], run.device).long(),
            )
            yield [chosen[row] for row in rows.nonzero().flatten().tolist()], group


def to_images(images: Tensor, device: torch.device) -> Tensor:
    """Move stored images [N, 3, H, W] uint8 to the device, as float32 in [0, 1] and channels_last."""
    return send(images, device).to(torch.float32, memory_format=torch.channels_last).div_(255.0)


@lru_cache(maxsize=16)  # the current and the next epoch of a few purposes
def _epoch(length: int, seed: int, purpose: str, epoch: int) -> tuple[int, ...]:
    order: list[int] = torch.randperm(length, generator=generator(seed, purpose, epoch)).tolist()
    return tuple(order)


def _read(splits: Splits, config: TrainConfig, context: StepContext) -> _Stored:
    def share(source: ImageSource, batch: int, purpose: str) -> Samples:
        global_batch = batch_indices(len(source), batch, context.seed, purpose, context.step)
        return source.fetch(rank_slice(global_batch, context.rank, context.world_size))

    labelled = share(splits.labelled, config.schedule.labelled_batch, "labelled")
    if not config.uses_unlabelled:
        return _Stored(labelled, None)
    # What truth there may be stays where it is: weak maps, where they are read, take its place.
    unlabelled = open_weak(config.data) if config.uses_weak else splits.unlabelled
    return _Stored(labelled, share(unlabelled, config.schedule.unlabelled_batch, "unlabelled"))


def _to_batch(stored: _Stored, config: TrainConfig, context: StepContext, device: torch.device) -> Batch:
    labels = {LABEL: send(stored.labelled.labels, device).long()}
    seen = _augment(stored.labelled, labels, "labelled", config, context, device)
    if stored.unlabelled is None:
        return Batch(seen[IMAGE], seen[LABEL], None)
    # Zeros become 255 outside of the image.
    labels = {LABEL: torch.zeros(stored.unlabelled.labels.shape, dtype=torch.int64, device=device)}
    if config.uses_weak:
        labels[WEAK] = send(stored.unlabelled.labels, device).long()
    unlabelled = _augment(stored.unlabelled, labels, "unlabelled", config, context, device)
    groups = send(torch.tensor(config.class_groups), device) if config.uses_weak else None
    inside = unlabelled[LABEL] != IGNORE
    return Batch(seen[IMAGE], seen[LABEL], unlabelled[IMAGE], inside, unlabelled.get(WEAK), groups)


def _augment(
    samples: Samples, labels: Maps, purpose: str, config: TrainConfig, context: StepContext, device: torch.device
) -> Maps:
    """Return images and their maps of labels, on the device."""
    maps = {IMAGE: to_images(samples.images, device), **labels}
    sizes = send(samples.sizes, device).float() if samples.padded else None
    weak, labelled = config.augment.weak, config.augment.labelled
    seed, step, rank, world_size = context[:4]
    if purpose == "unlabelled" or labelled is None:
        maps = weak_augment(maps, weak, seed, purpose, step, rank, world_size, sizes)
    else:
        maps = labelled_augment(maps, labelled, weak.crop, seed, step, rank, world_size, sizes)
    return maps | {IMAGE: maps[IMAGE].contiguous(memory_format=torch.channels_last)}
