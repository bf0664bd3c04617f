"""Batches of images that differ in size, and batches that are read ahead."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from official_trees import ade20k_tree

from trainers.config import (
    Ade20kData,
    AugmentConfig,
    DigitsData,
    LabelledAugmentConfig,
    LossConfig,
    ScheduleConfig,
    TrainConfig,
    WeakAugmentConfig,
)
from trainers.data.source import Samples
from trainers.data.splits import Splits, open_splits
from trainers.errors import DataError
from trainers.loader import BatchLoader, load_batch
from trainers.targets import Batch, StepContext

CPU = torch.device("cpu")

pytestmark = pytest.mark.filterwarnings("ignore:no training image that may be labelled holds")


def config(root: Path, **weak: object) -> TrainConfig:
    if not root.joinpath("images").exists():
        ade20k_tree(root)
    return TrainConfig(
        data=Ade20kData(root=root, labelled=4, dev=1),
        augment=AugmentConfig(weak=WeakAugmentConfig.model_validate({"crop": (32, 32)} | weak)),
        loss=LossConfig(lambda_c=0),
        schedule=ScheduleConfig(steps=5, labelled_batch=4, unlabelled_batch=2),
    )


def digits() -> TrainConfig:
    return TrainConfig(
        data=DigitsData(labelled=8, unlabelled=8, dev=1),
        augment=AugmentConfig(weak=WeakAugmentConfig(scale=(0.8, 1.2))),
        schedule=ScheduleConfig(steps=5, labelled_batch=4, unlabelled_batch=2),
    )


def same(one: Batch, other: Batch) -> bool:
    pairs = [(mine, theirs) for mine, theirs in zip(one, other, strict=True) if (mine, theirs) != (None, None)]
    return len(pairs) >= 3 and all(torch.equal(mine, theirs) for mine, theirs in pairs)  # type: ignore[arg-type]


class Watched:
    """Passes on the images of a source and notes what is asked for, and in which thread."""

    def __init__(self, source: object, broken: int | None = None) -> None:
        self.source, self.broken = source, broken
        self.threads: list[str] = []

    @property
    def names(self) -> tuple[str, ...]:
        return self.source.names  # type: ignore[attr-defined,no-any-return]

    def __len__(self) -> int:
        return len(self.names)

    def fetch(self, indices: Sequence[int]) -> Samples:
        self.threads.append(threading.current_thread().name)
        if len(self.threads) == self.broken:
            raise DataError("an image must be an image, got none: replace it")
        return self.source.fetch(indices)  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 4], [2, 0, 1, 4, 4]], ids=["all", "resumed", "any"])
def test_batches_that_are_read_ahead_are_those_of_the_function(order: list[int], tmp_path: Path) -> None:
    for given in (digits(), config(tmp_path, scale=(0.8, 1.2))):
        splits = open_splits(given.data)
        with BatchLoader(splits, given, 0, 1, CPU) as loader:
            for step in order:
                assert same(loader.load(step), load_batch(splits, given, StepContext(given.seed, step), CPU))


def test_a_rank_reads_its_own_share_ahead() -> None:
    given = digits()
    splits = open_splits(given.data)
    with BatchLoader(splits, given, 1, 2, CPU) as loader:
        for step in range(3):
            assert same(loader.load(step), load_batch(splits, given, StepContext(given.seed, step, 1, 2), CPU))


def test_every_step_but_the_first_is_read_by_the_thread_and_none_after_the_last() -> None:
    given = digits()
    splits = open_splits(given.data)
    labelled = Watched(splits.labelled)
    with BatchLoader(splits._replace(labelled=labelled), given, 0, 1, CPU) as loader:
        for step in range(5):
            loader.load(step)
    here = threading.current_thread().name
    assert [name == here for name in labelled.threads] == [True, False, False, False, False]


def test_an_image_that_cannot_be_read_fails_the_step_that_needs_it() -> None:
    given = digits()
    splits = open_splits(given.data)
    with BatchLoader(splits._replace(labelled=Watched(splits.labelled, broken=3)), given, 0, 1, CPU) as loader:
        loader.load(0)
        loader.load(1)
        with pytest.raises(DataError, match="an image must be an image"):
            loader.load(2)


def test_closing_leaves_no_thread_whatever_was_read_ahead() -> None:
    given = digits()
    splits = open_splits(given.data)
    before = threading.active_count()
    with BatchLoader(splits._replace(labelled=Watched(splits.labelled, broken=2)), given, 0, 1, CPU) as loader:
        loader.load(0)
    assert threading.active_count() == before


def unit(samples: Samples, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Image in [0, 1] and labels of a row, without padding."""
    height, width = samples.sizes[row].tolist()
    return samples.images[row, :, :height, :width] / 255, samples.labels[row, :height, :width].long()


def test_a_crop_of_an_image_is_that_of_the_image_alone(tmp_path: Path) -> None:
    # The crop is larger than any image: each lies in it as a whole, where the anchor puts its own size.
    given = config(tmp_path)
    splits = open_splits(given.data)
    batch = load_batch(splits, given, StepContext(0, 0), CPU)
    stored = splits.labelled.fetch(range(4))
    for image, label in zip(batch.images, batch.labels, strict=True):
        inside = [
            (row, top, left)
            for row in range(4)
            for (known, truth) in [unit(stored, row)]
            for top in range(32 - truth.shape[0] + 1)
            for left in range(32 - truth.shape[1] + 1)
            if torch.equal(label[top:, left:][: truth.shape[0], : truth.shape[1]], truth)
        ]
        assert len(inside) == 1
        row, top, left = inside[0]
        known, truth = unit(stored, row)
        height, width = truth.shape
        window = torch.zeros(32, 32, dtype=torch.bool)
        window[top : top + height, left : left + width] = True
        assert torch.allclose(image[:, window].reshape(known.shape), known, atol=1e-5)
        assert (label[~window] == 255).all()
        mean = known.mean((1, 2))
        assert torch.allclose(image[:, ~window], mean[:, None].expand(3, int((~window).sum())), atol=1e-5)


def test_the_batches_of_the_ranks_are_the_batch_of_one_whatever_their_padding(tmp_path: Path) -> None:
    given = config(tmp_path, scale=(0.6, 1.7), flip=0.5)
    splits: Splits = open_splits(given.data)
    for step in range(3):
        whole = load_batch(splits, given, StepContext(0, step), CPU)
        halves = [load_batch(splits, given, StepContext(0, step, rank, 2), CPU) for rank in range(2)]
        assert torch.equal(torch.cat([half.labels for half in halves]), whole.labels)
        images = torch.cat([half.images for half in halves])
        # Places are rounded in units of the padded size, which differs: up to 1e-5 pixels.
        assert torch.allclose(images, whole.images, atol=1e-4)


@pytest.mark.parametrize("crop", [None, (20, 28)])
def test_labelled_images_may_have_an_augmentation_of_their_own(crop: tuple[int, int] | None) -> None:
    colours = LabelledAugmentConfig(scale=(0.8, 1.2), jitter=1.0, blur=1.0)
    given = digits()
    weak = given.augment.weak.model_copy(update={"crop": crop})
    plain = given.model_copy(update={"augment": AugmentConfig(weak=weak)})
    coloured = given.model_copy(update={"augment": AugmentConfig(weak=weak, labelled=colours)})
    splits, context = open_splits(given.data), StepContext(given.seed, 2)
    one, other = (load_batch(splits, config, context, CPU) for config in (plain, coloured))
    assert not torch.equal(one.images, other.images)
    assert torch.equal(one.labels, other.labels)
    assert one.images.shape == other.images.shape
    assert one.unlabelled is not None
    assert other.unlabelled is not None
    assert torch.equal(one.unlabelled, other.unlabelled)


def test_labelled_images_that_differ_in_size_take_the_weak_crop(tmp_path: Path) -> None:
    given = config(tmp_path)
    augment = given.augment.model_copy(update={"labelled": LabelledAugmentConfig(scale=(0.5, 1.5), jitter=0.8)})
    batch = load_batch(open_splits(given.data), given.model_copy(update={"augment": augment}), StepContext(0, 0), CPU)
    assert batch.images.shape == (4, 3, 32, 32)
    assert not torch.equal(batch.images, load_batch(open_splits(given.data), given, StepContext(0, 0), CPU).images)
