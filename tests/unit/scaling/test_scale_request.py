"""Worker counts and batches: pure arithmetic, refused where it does not fit."""

import pytest

from harness.cli.scale import parse_counts
from harness.scaling.model import Mode
from harness.scaling.session import ScaleRequest, doubling
from trainers.errors import ConfigError, UsageError
from trainers.presets import load_preset


def request(mode: Mode) -> ScaleRequest:
    return ScaleRequest("digits_css", load_preset("digits_css"), mode, (1, 2), 20, 5, 10, 3)


def batches(mode: Mode, workers: int) -> tuple[int, int]:
    schedule = request(mode).config_of(workers).schedule
    return schedule.labelled_batch, schedule.unlabelled_batch


def test_with_weak_scaling_each_worker_has_the_presets_batch() -> None:
    assert [batches("weak", workers) for workers in (1, 2, 64)] == [(8, 8), (16, 16), (512, 512)]
    assert [request("weak").images_of(workers) for workers in (1, 2, 64)] == [16, 32, 1024]


def test_with_strong_scaling_all_workers_share_the_presets_batch() -> None:
    assert [batches("strong", workers) for workers in (1, 2, 8)] == [(8, 8)] * 3
    assert request("strong").images_of(8) == 16


def test_workers_that_cannot_share_the_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match="must be a multiple of both, got 8 for 3 workers"):
        request("strong").config_of(3)
    assert [request("strong").fits(workers) for workers in (2, 3, 8, 64)] == [True, False, True, False]


def test_the_loop_never_gets_to_an_evaluation() -> None:
    schedule = request("weak").config_of(1).schedule
    assert (schedule.steps, schedule.evaluate_every) == (111, 111)
    assert request("weak").total_steps == 110


def test_supervised_training_has_no_unlabelled_images_to_count() -> None:
    asked = ScaleRequest("digits_supervised", load_preset("digits_supervised"), "weak", (1,), 1, 1, 2, 1)
    assert asked.images_of(4) == 32


@pytest.mark.parametrize(("text", "counts"), [("1", (1,)), ("1,2,4", (1, 2, 4)), (" 2, 6 ", (2, 6))])
def test_counts_are_read(text: str, counts: tuple[int, ...]) -> None:
    assert parse_counts(text, "--workers") == counts


@pytest.mark.parametrize("text", ["", "0,1", "2,1", "1,1", "1,,2", "1;2", "1.5", "-1", "one"])
def test_counts_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--workers must be whole numbers from 1 on, ascending"):
        parse_counts(text, "--workers")


@pytest.mark.parametrize(("most", "counts"), [(1, (1,)), (2, (1, 2)), (7, (1, 2, 4)), (8, (1, 2, 4, 8))])
def test_counts_double_as_far_as_there_is_room(most: int, counts: tuple[int, ...]) -> None:
    assert doubling(most) == counts
