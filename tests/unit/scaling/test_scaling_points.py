"""Medians, ranges and efficiencies of repeats, and the bytes that have a name."""

import pytest
from invented.scalings import EXPECTED, SENT, sample

from harness.scaling.measure import summarise
from harness.scaling.model import gather_points
from harness.scaling.step_timer import StepTimes


def test_efficiency_pairs_the_repeats() -> None:
    # The machine is twice as slow in the second repeat; the pairs do not see that.
    samples = {1: [sample(1, 0.1, 16), sample(1, 0.2, 16)], 2: [sample(2, 0.125, 32), sample(2, 0.25, 32)]}
    point = gather_points(samples)[1]
    assert (point.efficiency, point.efficiency_range) == (pytest.approx(0.8), (pytest.approx(0.8), pytest.approx(0.8)))


def test_efficiency_is_that_of_a_worker_of_the_first_point() -> None:
    points = gather_points({2: [sample(2, 0.1, 32)], 4: [sample(4, 0.2, 64)]})
    assert [point.efficiency for point in points] == [1.0, pytest.approx(0.5)]


def test_every_byte_has_a_name() -> None:
    point = gather_points({2: [sample(2, 0.1, 32)]})[0]
    assert point.bytes_expected == EXPECTED
    assert point.bytes_per_step == SENT
    assert point.bytes_unexplained == 0
    assert sum(point.bytes.values()) == SENT


def test_a_byte_too_many_is_seen() -> None:
    point = gather_points({2: [{**sample(2, 0.1, 32), "bytes_per_step": SENT + 8.0}]})[0]
    assert point.bytes_unexplained == 8


def step(step_s: float, *waits: float) -> StepTimes:
    return StepTimes(step_s, waits, 0.001, (400,), (12, 8))


def test_a_step_takes_as_long_as_its_slowest_rank_and_blocks_have_a_median() -> None:
    one = [step(0.1, 0.01), step(0.1, 0.01), step(0.5, 0.01), step(0.1, 0.01)]
    other = [step(0.2, 0.01), step(0.1, 0.01), step(0.1, 0.01), step(0.1, 0.01)]
    found = summarise([one, other], steps=2, images=30)
    assert [found["block/0/step_s"], found["block/1/step_s"]] == [pytest.approx(0.15), pytest.approx(0.3)]
    assert found["step_s"] == pytest.approx(0.225)
    assert found["images_per_s"] == pytest.approx(30 / 0.225)


def test_transfer_leaves_out_what_ranks_waited_for_each_other() -> None:
    # Rank 0 waits for rank 1 in the first collective, rank 1 for rank 0 in the second.
    found = summarise([[step(0.1, 0.011, 0.002)], [step(0.1, 0.001, 0.012)]], steps=1, images=1)
    assert found["transfer_s"] == pytest.approx(0.003)
    assert found["communication_s"] == pytest.approx(0.013)


def test_bytes_are_those_of_one_rank() -> None:
    found = summarise([[step(0.1, 0.01)], [step(0.1, 0.01)]], steps=1, images=1)
    assert found["bytes_per_step"] == 420
    assert [found["bytes/gradients"], found["bytes/message/0"], found["bytes/message/1"]] == [400, 12, 8]
    assert found["collectives"] == 3
    assert found["bytes/equal_steps"] == 1
