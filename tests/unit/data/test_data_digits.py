"""Scenes of digits: disjoint pools, pure scenes, labels that fit."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from trainers.config import DigitsData
from trainers.data import scenes
from trainers.data.digits import DigitsSource, Split
from trainers.data.scenes import compose, digit_pools

SPLITS: tuple[Split, ...] = ("labelled", "unlabelled", "dev", "val")


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_no_digit_is_in_two_pools_and_none_is_lost(seed: int) -> None:
    pools = digit_pools(seed)
    for one, other in itertools.combinations(pools.values(), 2):
        assert not set(one.tolist()) & set(other.tolist())
    assert sorted(np.concatenate(list(pools.values())).tolist()) == list(range(1797))
    assert {pool: len(samples) for pool, samples in pools.items()} == {"val": 359, "dev": 270, "train": 1168}


def test_the_seed_draws_the_pools() -> None:
    assert digit_pools(0)["val"].tolist() != digit_pools(1)["val"].tolist()


@pytest.mark.parametrize("split", SPLITS)
def test_a_scene_does_not_depend_on_how_many_are_asked_for(split: Split) -> None:
    few, many = compose(DigitsData(), split, 5), compose(DigitsData(), split, 40)
    assert torch.equal(few[0], many[0][:5])
    assert torch.equal(few[1], many[1][:5])


def test_a_scene_does_not_depend_on_the_chunk_that_it_is_composed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compose(DigitsData(), "dev", 10)
    monkeypatch.setattr(scenes, "_CHUNK_PIXELS", 3 * 32 * 32)
    assert all(torch.equal(one, other) for one, other in zip(compose(DigitsData(), "dev", 10), whole, strict=True))


def test_splits_and_seeds_have_backgrounds_of_their_own() -> None:
    images = [compose(DigitsData(seed=seed, fill=0.0), split, 3)[0] for seed in (0, 1) for split in SPLITS]
    for one, other in itertools.combinations(images, 2):
        assert not torch.equal(one, other)


def test_the_number_of_labelled_scenes_changes_no_other_split() -> None:
    few, many = DigitsData(labelled=4, unlabelled=50), DigitsData(labelled=80, unlabelled=50)
    for split in SPLITS[1:]:
        one, other = (DigitsSource(data, split).fetch([0, 3])[0] for data in (few, many))
        assert torch.equal(one, other)


def test_scenes_are_bytes_of_the_size_asked_for_with_labels_of_all_classes() -> None:
    data = DigitsData(image_size=44, grid=3, digit_size=(8, 14))  # 3 x 14 px leaves a rest of 2
    images, labels = compose(data, "unlabelled", 100)
    assert (images.shape, images.dtype) == ((100, 3, 44, 44), torch.uint8)
    assert (labels.shape, labels.dtype) == ((100, 44, 44), torch.uint8)
    assert labels.unique().tolist() == list(range(11))
    assert not labels[:, 42:].any()
    assert not labels[:, :, 42:].any()


def test_an_empty_scene_is_background_up_to_the_clutter() -> None:
    images, labels = compose(DigitsData(fill=0.0, clutter=0.4), "val", 20)
    assert not labels.any()
    assert images.amax((1, 2, 3)).unique().tolist() == [102]
    assert images.float().diff(dim=-1).abs().max() < 14  # smooth: of 102 at most, over the 10 px between nodes


def test_every_cell_holds_one_digit_when_all_are_filled() -> None:
    _, labels = compose(DigitsData(fill=1.0), "val", 50)
    cells = labels.unfold(1, 16, 16).unfold(2, 16, 16).reshape(-1, 256)
    for cell in cells:
        assert len(set(cell.tolist()) - {0}) == 1


def test_filled_cells_have_the_share_asked_for() -> None:
    _, labels = compose(DigitsData(fill=0.6), "unlabelled", 500)
    filled = F.max_pool2d(labels.float(), 16) > 0
    assert abs(filled.float().mean().item() - 0.6) < 0.044  # four standard deviations of 2000 draws


def test_labels_are_the_stroke_and_one_pixel_around_it() -> None:
    images, labels = compose(DigitsData(clutter=0.0), "unlabelled", 200)
    opacity = images.amax(1).float() / 255  # the brightest channel of a digit's colour is 1, on black
    stroke = (opacity > 0.5).float()
    assert torch.equal(labels[stroke.bool()] > 0, torch.ones(int(stroke.sum()), dtype=torch.bool))
    wider = F.max_pool2d(stroke[:, None], 3, stride=1, padding=1)[:, 0].bool()
    assert not (labels.bool() & ~wider).any()


def test_fetch_gathers_in_the_order_asked_for_and_repeats() -> None:
    source = DigitsSource(DigitsData(labelled=40), "labelled")
    images, labels, sizes = source.fetch([3, 0, 3])
    assert torch.equal(images[0], images[2])
    assert torch.equal(images[1], source.fetch([0])[0][0])
    assert (len(source), len(source.names), len(set(source.names))) == (40, 40, 40)
    assert labels.shape == (3, 32, 32)
    assert sizes.tolist() == [[32, 32]] * 3


def test_the_digits_are_those_of_scikit_learn() -> None:
    ours, theirs = scenes._digits(), load_digits()
    assert np.array_equal(ours.opacity.numpy() * 16, theirs.images)
    assert np.array_equal(ours.digit.numpy(), theirs.target)
