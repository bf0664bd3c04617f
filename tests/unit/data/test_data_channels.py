"""`s4 data channels`: what single channels tell of the classes, on labelled pixels alone."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from harness.cli.main import run
from trainers.data.channels import BINS, Channels, fisher_ratio, measure_channels, mutual_information
from trainers.data.channels import settings_of_channels as all_channels
from trainers.data.source import Samples, uniform_samples
from trainers.errors import DataError

SMALL = ["--set", "data.labelled=8", "--set", "data.unlabelled=8", "--set", "data.dev=4"]


class Made:
    """Images and labels that are given."""

    names = ("one", "other")

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self._given = images, labels

    def __len__(self) -> int:
        return len(self._given[0])

    def fetch(self, indices: list[int]) -> Samples:
        return uniform_samples(*self._given, indices)


def measured(images: torch.Tensor, labels: torch.Tensor, num_classes: int = 2) -> Channels:
    return measure_channels(Made(images, labels), num_classes)


def greys() -> tuple[torch.Tensor, torch.Tensor]:
    """Grey images whose brightness is their class, 70 or 180."""
    labels = (torch.rand(2, 24, 32, generator=torch.Generator().manual_seed(0)) < 0.25).to(torch.uint8)
    return (70 + 110 * labels)[:, None].expand(-1, 3, -1, -1).contiguous(), labels


def test_the_fisher_ratio_is_that_of_the_definition() -> None:
    draws = np.random.default_rng(0)
    classes = draws.integers(0, 4, 500)
    classes[classes == 2] = 3  # a class without pixels
    values = draws.normal(classes * 0.7, 1.0)
    of_class = [values[classes == each] for each in (0, 1, 3)]
    between = sum(len(own) * (own.mean() - values.mean()) ** 2 for own in of_class)
    assert fisher_ratio(values, classes) == pytest.approx(between / sum(len(own) * own.var() for own in of_class))
    assert fisher_ratio(np.ones(500), classes) == 0.0


def test_the_mutual_information_is_that_of_scikit_learn_and_the_same_for_any_increasing_function() -> None:
    draws = np.random.default_rng(0)
    classes = draws.integers(0, 3, 20_000)
    values = draws.normal(classes * 0.7, 1.0)
    rank = values.argsort().argsort()
    expected = mutual_info_score(rank * BINS // len(values), classes) / np.log(2)
    assert mutual_information(values, classes) == pytest.approx(expected, rel=1e-3)
    assert mutual_information(np.exp(values), classes) == pytest.approx(mutual_information(values, classes), rel=1e-6)
    # Of a channel that tells nothing the estimate's bias is left.
    bias = (BINS - 1) * 2 / (2 * len(values) * np.log(2))
    assert mutual_information(draws.normal(size=len(values)), classes) == pytest.approx(bias, rel=0.3)


def test_where_all_is_grey_brightness_tells_everything_and_colour_nothing() -> None:
    images, labels = greys()
    result = measured(images, labels)
    told = {each.channel: (each.information, each.fisher) for each in result.channels}
    share = float(labels.float().mean())
    assert result.entropy == pytest.approx(-share * np.log2(share) - (1 - share) * np.log2(1 - share))
    for channel in ("red", "green", "blue", "Y", "L*", "O3", "value"):
        assert told[channel][0] == pytest.approx(result.entropy, abs=1e-9)
        assert told[channel][1] > 1e6
    for channel in ("I", "Q", "O1", "O2", "a*", "b*", "hue", "saturation", "r", "g", "b"):
        assert told[channel] == (0.0, 0.0)
    assert {each.channel for each in result.channels[:7]} == {"red", "green", "blue", "Y", "L*", "O3", "value"}


def test_pixels_without_a_label_are_not_looked_at() -> None:
    images, labels = greys()
    labels[:, :, 20:] = 255
    before = {each.channel: each for each in measured(images, labels).channels}
    images[:, :, :, 20:] = torch.randint(256, (2, 3, 24, 12), dtype=torch.uint8)
    result = measured(images, labels)
    near = {"gradient", "local std"}  # which see the neighbours of a pixel
    assert result.pixels == 2 * 24 * 20
    assert {each for each in result.channels if each.channel not in near} == {
        each for name, each in before.items() if name not in near
    }


def test_images_without_any_label_are_refused() -> None:
    images, labels = greys()
    with pytest.raises(DataError, match="labelled images must have a labelled pixel, got none"):
        measured(images, torch.full_like(labels, 255))


def test_each_channel_is_listed_once_with_all_settings_that_bring_it() -> None:
    assert all_channels()["Y"] == ["space=yiq", "space=grey"]
    assert all_channels()["L*"] == ["space=lab", "add=lightness"]
    assert len(all_channels()) == 22


def test_the_command_ranks_the_channels_as_a_table_and_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "channels.csv"
    assert run(["data", "channels", "digits_css", *SMALL, "--json", "--csv", str(table)]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    said = [each["information"] for each in result["channels"]]
    assert said == sorted(said, reverse=True)
    assert (result["images"], 0 < said[0] < result["entropy"]) == (8, True)
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert [row["channel"] for row in rows] == [each["channel"] for each in result["channels"]]
    assert float(rows[0]["information"]) == said[0]
    assert "mutual information" in captured.err
    assert "labelled images: 8/8" in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits_css", "--csv", "."], "--csv must be a new file, . exists: choose another"),
        (["camvid_css", "--set", "data.root=nowhere"], "data.root"),
    ],
)
def test_wrong_use_is_answered_in_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "channels", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
