"""`s4 space`: files around a preset's values, and tables of spaces."""

import json
from pathlib import Path

import pytest

from harness.cli.main import run
from harness.experiment import CssExperiment
from harness.space_file import draft_space
from search_spaces import SpaceError, load_space
from search_spaces.space import parse_space
from trainers.overrides import flatten
from trainers.presets import PRESETS

EXPERIMENT = CssExperiment.of("digits_css")
BY_HAND = {
    path for path, value in flatten(EXPERIMENT.config).items() if value is None or isinstance(value, list)
} - {"loss.class_weights"}  # fmt: skip
"""Values that are no number, choice or truth value."""


@pytest.mark.parametrize("preset", ["digits_css", "camvid_lite0", "voc_css_92"])
def test_every_number_and_choice_of_a_preset_can_be_searched_around_its_value(preset: str) -> None:
    assert preset in PRESETS
    experiment = CssExperiment.of(preset)
    refused = set()
    for path, value in flatten(experiment.config).items():
        try:
            space = parse_space(draft_space([path], experiment))
        except SpaceError:
            refused.add(path)
        else:
            assert space.starting_from(experiment.config).baseline == {path: value}
    numbers = {path for path in refused if isinstance(flatten(experiment.config)[path], int | float)}
    depend_on_others = {"data.image_size", "data.grid", "model.students"}
    of_vits_alone = {"optimizer.layer_decay", "model.checkpointing", "model.drop_path"}
    of_weak_maps = {"loss.lambda_w", "css.veto"}
    assert numbers <= depend_on_others | of_vits_alone | of_weak_maps
    assert preset != "digits_css" or refused >= BY_HAND


@pytest.mark.parametrize(
    ("word", "drawn"),
    [
        ("lr", "optimizer.lr: {float: [0.01, 1.0, log]}"),
        ("model.width", "model.width: {int: {low: 8, high: 96, step: 8}}"),
        ("queries", "loss.queries: {int: [16, 256, log]}"),
        ("teacher_momentum", "ema.teacher_momentum: {float: [0.9, 0.999], one_minus: true}"),
        ("hue", "augment.strong.hue: {float: [0.05, 0.2]}"),
        ("optimizer.kind", 'optimizer.kind: ["sgd", "adamw"]'),
        ("joint_forward", "schedule.joint_forward: [false, true]"),
    ],
)
def test_a_range_lies_around_the_value_as_such_values_are_drawn(word: str, drawn: str) -> None:
    assert draft_space([word], EXPERIMENT).splitlines()[-1].strip() == drawn


def test_every_word_that_is_not_one_path_is_refused_with_the_paths_it_could_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["space", "new", "weak.scale_draw", "flip", "lambda_x", "--out", str(tmp_path / "a.yaml")]) == 2
    err = capsys.readouterr().err
    assert "'flip' names 2 paths: write one of augment.weak.flip, augment.strong.flip\n" in err
    assert "'lambda_x' names none: write one of loss.lambda_s, loss.lambda_u, loss.lambda_w" in err
    assert not [*tmp_path.iterdir()]


def test_a_space_is_written_into_a_new_file_that_a_search_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.yaml"
    line = ["space", "new", "lr", "width", "--set", "optimizer.lr=0.02", "--out", str(out)]
    assert run(line) == 0
    assert f"{out}: 2 parameters; next: s4 tune digits_css --space {out}" in capsys.readouterr().out
    assert load_space(out).paths == ("optimizer.lr", "model.width")
    before = out.read_text()
    assert "0.02 in digits_css" in before
    assert run(line) == 2
    assert "--out must be a new file" in capsys.readouterr().err
    assert out.read_text() == before


def test_without_a_file_the_space_goes_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["space", "new", "lr"]) == 0
    assert parse_space(capsys.readouterr().out).paths == ("optimizer.lr",)


def test_a_space_is_shown_with_what_it_leaves_to_the_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("parameters:\n  optimizer.lr: {float: [0.01, 1, log]}\n")
    assert run(["space", "show", str(tmp_path / "mine.yaml")]) == 0
    assert "0.01 to 1, log          -" in capsys.readouterr().out
    assert run(["space", "show", str(tmp_path / "mine.yaml"), "--preset", "digits_css", "--json"]) == 0
    captured = capsys.readouterr()
    assert "0.01 to 1, log        0.1" in captured.err
    assert json.loads(captured.out)["baseline"] == {"optimizer.lr": 0.1}


def test_a_shown_space_has_a_row_for_each_parameter_and_says_when_it_exists(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert run(["space", "show", "css"]) == 0
    rows = {words[0]: " ".join(words[1:]) for line in capsys.readouterr().out.splitlines() if (words := line.split())}
    assert {path for path in rows if "." in path} == set(load_space("css").paths)
    assert rows["css.cross_warmup"] == "0 to 0.5, if css.label_strategy is cross - -"
    assert rows["ema.teacher_momentum"] == "0.9 to 0.9995, log of 1 - m 0.99 0.99"
    assert rows["thresholds.delta_s"].startswith("0.1 to 0.99 of the way from thresholds.delta_w to 1")
