"""Geometry moves an image and its maps together, and touches no value."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainers.augment.geometry import GeometryParams, apply_flip, apply_geometry, draw_geometry, moves_nothing
from trainers.augment.maps import Maps
from trainers.config import GeometryConfig, LabelledAugmentConfig, StrongAugmentConfig, WeakAugmentConfig


def batch(n: int = 3, height: int = 24, width: int = 32) -> Maps:
    g = torch.Generator().manual_seed(n * height + width)
    return {
        "image": torch.rand(n, 3, height, width, generator=g),
        "label": torch.randint(0, 11, (n, height, width), generator=g),
        "label_representation": torch.randint(0, 11, (n, height, width), generator=g),
        "confidence": torch.rand(n, height, width, generator=g),
    }


def params(
    n: int, scale: float = 1.0, anchor: float = 0.5, shift: tuple[float, float] = (0, 0), flip: bool = False
) -> GeometryParams:
    return GeometryParams(
        scale=torch.full((n,), scale),
        anchor=torch.full((n, 2), anchor),
        shift=torch.tensor(shift, dtype=torch.float32).expand(n, 2),
        flip=torch.full((n,), flip),
    )


def encoded(label: Tensor) -> Tensor:
    """An image whose every channel is its label: what moves with it can be compared."""
    return (label.float() / 10)[:, None].expand(-1, 3, -1, -1).contiguous()


def test_a_flip_reverses_every_map() -> None:
    maps = batch()
    moved = apply_geometry(maps, params(3, flip=True), (24, 32))
    assert torch.allclose(moved["image"], maps["image"].flip(-1), atol=1e-5)  # the grid is off by up to 1e-5 pixels
    for key in ("label", "label_representation", "confidence"):
        assert torch.equal(moved[key], maps[key].flip(-1))


def test_the_identity_moves_nothing_even_where_it_is_computed() -> None:
    maps = batch()
    moved = apply_geometry(maps, params(3), (24, 32))
    assert torch.allclose(moved["image"], maps["image"], atol=1e-5)
    assert all(torch.equal(moved[key], maps[key]) for key in maps if key != "image")
    assert list(moved) == list(maps)


@settings(max_examples=40)
@given(down=st.integers(-10, 10), right=st.integers(-10, 10))
def test_a_shift_moves_whole_pixels_and_ignores_what_comes_from_outside(down: int, right: int) -> None:
    maps = batch()
    moved = apply_geometry(maps, params(3, shift=(down / 24, right / 32)), (24, 32))
    rows, columns = torch.arange(24)[:, None] + down, torch.arange(32)[None] + right
    inside = (rows >= 0) & (rows < 24) & (columns >= 0) & (columns < 32)
    rows, columns = rows.clamp(0, 23), columns.clamp(0, 31)
    assert torch.equal(moved["label"], torch.where(inside, maps["label"][:, rows, columns], 255))
    assert torch.equal(moved["confidence"], torch.where(inside, maps["confidence"][:, rows, columns], 0.0))
    mean = maps["image"].mean((-2, -1), keepdim=True)
    expected = torch.where(inside, maps["image"][:, :, rows, columns], mean)
    assert torch.allclose(moved["image"], expected, atol=1e-5)


@pytest.mark.parametrize("anchor", [0.0, 0.3, 1.0])
def test_a_crop_is_a_piece_of_the_input(anchor: float) -> None:
    maps = batch()
    moved = apply_geometry(maps, params(3, anchor=anchor), (16, 20))
    top, left = round(anchor * 8), round(anchor * 12)
    piece = (..., slice(top, top + 16), slice(left, left + 20))
    assert torch.equal(moved["label"], maps["label"][piece])
    assert torch.allclose(moved["image"], maps["image"][piece], atol=1e-5)


def test_doubling_repeats_every_label_twice() -> None:
    maps = batch()
    moved = apply_geometry(maps, params(3, scale=2.0, anchor=0.0), (24, 32))
    expected = maps["label"][:, :12, :16].repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(moved["label"], expected)


def test_a_small_image_lies_inside_its_crop() -> None:
    maps = batch()
    moved = apply_geometry(maps, params(3, anchor=1.0), (32, 40))
    assert torch.equal(moved["label"][:, 8:, 8:], maps["label"])
    assert (moved["label"][:, :8] == 255).all()
    assert (moved["label"][:, :, :8] == 255).all()


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), low=st.floats(0.5, 1.0), high=st.floats(1.0, 3.0))
def test_label_image_and_confidence_move_together(seed: int, low: float, high: float) -> None:
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 11, (4, 3, 4), generator=g)
    label = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)  # 8 px blocks, so that most pixels have no edge near
    maps = {"image": encoded(label), "label": label, "confidence": label / 10}
    config = StrongAugmentConfig(scale=(low, high), shift=0.3, flip=0.5)
    moved = apply_geometry(maps, draw_geometry(config, 4, g), (24, 32))
    inside = moved["label"] != 255
    assert torch.equal(moved["confidence"], torch.where(inside, moved["label"] / 10, 0.0))
    # Bilinear interpolation departs from the nearest pixel only up to two pixels from an edge between blocks.
    labels = moved["label"].float()[:, None]
    plain = (F.max_pool2d(labels, 5, 1) == -F.max_pool2d(-labels, 5, 1)) & inside[:, None, 2:-2, 2:-2]
    shown = moved["image"][:, :1, 2:-2, 2:-2][plain]
    assert torch.allclose(shown, labels[:, :, 2:-2, 2:-2][plain] / 10, atol=1e-4)


def padded(maps: Maps, height: int, width: int) -> Maps:
    """The maps, padded at the bottom and right with 0."""
    grown = (0, width - maps["image"].shape[-1], 0, height - maps["image"].shape[-2])
    return {key: F.pad(values, grown) for key, values in maps.items()}


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), height=st.integers(24, 40), width=st.integers(32, 45))
def test_padding_changes_nothing_of_what_an_image_becomes(seed: int, height: int, width: int) -> None:
    g = torch.Generator().manual_seed(seed)
    maps = batch()
    draws = draw_geometry(WeakAugmentConfig(scale=(0.5, 2.0), flip=0.5), 3, g)
    sizes = torch.tensor([[24.0, 32.0]]).expand(3, 2)
    alone = apply_geometry(maps, draws, (20, 36))
    moved = apply_geometry(padded(maps, height, width), draws, (20, 36), sizes)
    for key in ("label", "label_representation", "confidence"):
        assert torch.equal(moved[key], alone[key])
    assert torch.allclose(moved["image"], alone["image"], atol=1e-4)  # places are off by up to 1e-5 padded pixels


def test_each_image_of_a_padded_batch_has_a_place_and_a_mean_of_its_own() -> None:
    small, large = batch(1, 12, 16), batch(1, 24, 32)
    both = {key: torch.cat([padded(small, 24, 32)[key], large[key]]) for key in large}
    # No pixel of the result looks at an edge between two pixels here, where rounding would choose.
    scale, anchor = torch.tensor([0.73, 1.37]), torch.rand(2, 2, generator=torch.Generator().manual_seed(0))
    one = GeometryParams(scale, anchor, torch.zeros(2, 2), torch.tensor([True, False]))
    moved = apply_geometry(both, one, (16, 16), torch.tensor([[12.0, 16.0], [24.0, 32.0]]))
    for row, maps in enumerate((small, large)):
        alone = apply_geometry(maps, GeometryParams(*(column[row : row + 1] for column in one)), (16, 16))
        assert torch.equal(moved["label"][row], alone["label"][0])
        assert torch.allclose(moved["image"][row], alone["image"][0], atol=1e-4)


def test_values_are_copied_as_floats() -> None:
    confidence = torch.tensor([0.97, 0.7, math.nextafter(0.97, 0), 1e-7, 1.0], dtype=torch.float32)
    maps = batch() | {"confidence": confidence[torch.randint(0, 5, (3, 24, 32))]}
    config = StrongAugmentConfig(scale=(0.6, 1.8), shift=0.2, flip=0.5)
    moved = apply_geometry(maps, draw_geometry(config, 3, torch.Generator().manual_seed(0)), (24, 32))
    assert set(moved["confidence"].unique().tolist()) <= {0.0, *confidence.tolist()}
    assert {key: values.dtype for key, values in moved.items()} == {key: values.dtype for key, values in maps.items()}


def test_draws_keep_to_their_ranges() -> None:
    g = torch.Generator().manual_seed(0)
    weak = draw_geometry(WeakAugmentConfig(scale=(0.5, 2.0), flip=0.25), 4000, g)
    assert 0.5 <= weak.scale.min() < 0.51
    assert 1.96 < weak.scale.max() <= 2.0
    assert abs(weak.scale.log().mean()) < 0.025  # log-uniform: four standard deviations of the mean
    assert abs(weak.flip.float().mean() - 0.25) < 0.028
    assert not weak.shift.any()
    strong = draw_geometry(StrongAugmentConfig(shift=0.2), 4000, g)
    assert 0.195 < strong.shift.abs().max() <= 0.2
    assert (strong.anchor == 0.5).all()
    assert (strong.scale == 1).all()
    assert not strong.flip.any()


@pytest.mark.parametrize("kind", [WeakAugmentConfig, LabelledAugmentConfig, StrongAugmentConfig])
def test_a_magnification_is_drawn_uniformly_where_the_config_says_so(kind: type[GeometryConfig]) -> None:
    def drawn(how: str) -> Tensor:
        config = kind.model_validate({"scale": (0.5, 1.5), "scale_draw": how})
        return draw_geometry(config, 4000, torch.Generator().manual_seed(0)).scale

    uniform, log = drawn("uniform"), drawn("log")
    assert 0.5 <= uniform.min() < 0.501
    assert 1.499 < uniform.max() <= 1.5
    # Means of 1 and of 1 / ln 3 = 0.910; the standard deviation of a mean is 0.0046.
    assert abs(uniform.mean() - 1) < 0.019
    assert abs(log.mean() - 0.910) < 0.019


def test_strong_augmentation_may_see_any_place_of_a_magnified_image() -> None:
    config = StrongAugmentConfig(scale=(0.5, 1.5), place="anywhere", shift=0.3)
    drawn = draw_geometry(config, 4000, torch.Generator().manual_seed(0))
    assert drawn.anchor.min() < 0.002
    assert drawn.anchor.max() > 0.998
    assert not drawn.shift.any()
    centred = draw_geometry(config.model_copy(update={"place": "centred"}), 4000, torch.Generator().manual_seed(0))
    assert torch.equal(centred.scale, drawn.scale)
    assert torch.equal(centred.shift, 0.3 * (2 * drawn.anchor - 1))


def test_an_image_made_smaller_lies_anywhere_and_whole_with_everything_else_ignored() -> None:
    maps = batch(200) | {"label": torch.ones(200, 24, 32, dtype=torch.int64)}
    config = StrongAugmentConfig(scale=(0.5, 0.5), place="anywhere")
    label = apply_geometry(maps, draw_geometry(config, 200, torch.Generator().manual_seed(0)), (24, 32))["label"]
    assert torch.equal((label == 1).sum((1, 2)), torch.full((200,), 12 * 16))
    assert ((label == 1) | (label == 255)).all()
    corners = {(int(row), int(column)) for row, column in ((one == 1).nonzero()[0] for one in label)}
    assert {row for row, _ in corners} >= {0, 12}
    assert {column for _, column in corners} >= {0, 16}


def test_a_flip_of_maps_is_exact_and_of_the_chosen_images_alone() -> None:
    maps = batch()
    flipped = apply_flip(maps, torch.tensor([True, False, True]))
    for key, values in maps.items():
        assert torch.equal(flipped[key][::2], values[::2].flip(-1))
        assert torch.equal(flipped[key][1], values[1])


def test_the_config_tells_whether_anything_moves() -> None:
    size = (24, 32)
    assert moves_nothing(WeakAugmentConfig(), size, size)
    assert moves_nothing(WeakAugmentConfig(crop=size), size, size)
    assert moves_nothing(StrongAugmentConfig(), size, size)
    assert not moves_nothing(WeakAugmentConfig(crop=(16, 16)), size, (16, 16))
    assert not moves_nothing(WeakAugmentConfig(flip=0.1), size, size)
    assert not moves_nothing(StrongAugmentConfig(shift=0.1), size, size)
    assert not moves_nothing(StrongAugmentConfig(scale=(1.0, 1.1)), size, size)
    assert moves_nothing(StrongAugmentConfig(shift=0.1, place="anywhere"), size, size)
    assert not moves_nothing(StrongAugmentConfig(scale=(0.5, 1.0), place="anywhere"), size, size)
