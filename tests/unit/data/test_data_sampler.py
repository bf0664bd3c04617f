"""The order of the images is a law of the step, with no state."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.errors import ConfigError, DataError
from trainers.loader import batch_indices, rank_slice

lengths = st.integers(1, 40)
batches = st.integers(1, 24)


@settings(max_examples=60)
@given(length=lengths, batch=batches, seed=st.integers(0, 2**31 - 1))
def test_batches_end_to_end_read_every_image_once_an_epoch(length: int, batch: int, seed: int) -> None:
    steps = -(-3 * length // batch)
    order = [index for step in range(steps) for index in batch_indices(length, batch, seed, "labelled", step)]
    for epoch in range(3):
        assert sorted(order[epoch * length : (epoch + 1) * length]) == list(range(length))


@settings(max_examples=30)
@given(length=lengths, batch=batches, step=st.integers(0, 10**6))
def test_a_step_needs_no_earlier_step(length: int, batch: int, step: int) -> None:
    first = batch_indices(length, batch, 7, "labelled", step)
    for earlier in range(max(0, step - 20), step):
        batch_indices(length, batch, 7, "labelled", earlier)
    assert batch_indices(length, batch, 7, "labelled", step) == first
    assert len(first) == batch


def test_epochs_seeds_and_purposes_have_orders_of_their_own() -> None:
    orders = [
        batch_indices(50, 50, 0, "labelled", 0),
        batch_indices(50, 50, 0, "labelled", 1),
        batch_indices(50, 50, 1, "labelled", 0),
        batch_indices(50, 50, 0, "unlabelled", 0),
    ]
    assert len({tuple(order) for order in orders}) == len(orders)


@given(share=st.integers(1, 8), world_size=st.integers(1, 8))
def test_the_shares_of_all_ranks_in_order_are_the_batch(share: int, world_size: int) -> None:
    batch = list(range(100, 100 + share * world_size))
    shares = [rank_slice(batch, rank, world_size) for rank in range(world_size)]
    assert {len(part) for part in shares} == {share}
    assert [index for part in shares for index in part] == batch


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"multiple of the ranks, got 6 images and 4 ranks: change"):
        rank_slice(range(6), 0, 4)


def test_drawing_from_nothing_is_refused() -> None:
    with pytest.raises(DataError, match=r"unlabelled images needs at least one image, got none"):
        batch_indices(0, 4, 0, "unlabelled", 0)
