"""What can be set and what there is, and configs in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli.main import run
from harness.experiment import CssExperiment
from harness.run_folder import RunInfo, write_run
from trainers.overrides import flatten
from trainers.presets import PRESETS, load_preset


def test_every_path_is_listed_with_its_value_range_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "digits_css", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    config = flatten(load_preset("digits_css").model_dump(mode="json"))
    assert {path: row["value"] for path, row in rows.items()} == config
    assert (rows["thresholds.delta_u"]["range"], rows["css.indicator"]["range"]) == (
        ">= 0, <= 1", "'similarity' | 'confidence' | 'discriminator'"
    )  # fmt: skip
    assert [path for path, row in rows.items() if not row["meaning"]] == []


def test_a_word_finds_paths_and_meanings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "--search", "LAMBDA_U"]) == 0
    assert "loss.lambda_u = 1.0    (>= 0)" in capsys.readouterr().out
    assert run(["config", "--search", "nothing like it"]) == 2


def test_runs_presets_methods_spaces_and_plans_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "mine", RunInfo.of("train", CssExperiment.of("digits_css"), "dev/miou", {}))
    assert run(["list", "--storage", str(tmp_path), "--json"]) == 0
    out, said = capsys.readouterr()
    names = json.loads(out)
    assert (names["runs"], names["presets"]) == (["mine"], list(PRESETS))
    assert {"css_mix"} <= set(names["methods"])
    assert "css_quick" in names["spaces"]
    assert "table1" in names["plans"]
    assert [line.split() for line in said.splitlines() if "mine" in line] == [["mine", "train"]]
    assert run(["list", "spaces"]) == 0
    assert capsys.readouterr().out.startswith("spaces: css")


def test_a_file_is_a_preset_and_settings_nested_or_by_path(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(
        "preset: camvid_css\ndata: {root: photos, classes: [sky, road], palette: {sky: [1, 2, 3], road: [4, 5, 6]}}\n"
        "loss.lambda_c: 0.5\nloss: {lambda_u: 2.0, class_weights: auto}\n"
    )
    experiment = CssExperiment.of(str(file), {"loss.lambda_u": 3.0})
    written = {
        "data.root": "photos", "data.classes": ["sky", "road"], "loss.lambda_c": 0.5, "loss.class_weights": "auto",
        "data.palette": {"sky": [1, 2, 3], "road": [4, 5, 6]}, "loss.lambda_u": 3.0,
    }  # fmt: skip
    assert (experiment.name, experiment.settings) == ("camvid_css", written)
    assert experiment.base == CssExperiment.of("camvid_css", written).base


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("data: {root: x}\n", "must hold `preset: NAME`"),
        ("preset: digits_cs\n", "did you mean digits_css"),
        ("preset: digits_css\nloss: {lambda_u: 1, lambda_u: 2}\n", "appears twice"),
        ("preset: digits_css\nloss.lambda_u: 1\nloss: {lambda_u: 2}\n", "sets loss.lambda_u twice"),
        ("preset: digits_css\nloss: {lambda_x: 2}\n", "loss.lambda_x"),
        ("preset: [", "must be YAML"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_config_is_refused_in_one_line(
    text: str | None, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "my.yaml").write_text(text)
    assert run(["plan", str(tmp_path / "my.yaml")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert reason in said


@pytest.mark.parametrize("preset", ["camvid_css", "voc_css_92", "cityscapes_css_186", "ade20k_css", "coco_stuff_css"])
def test_no_setting_of_other_data_is_without_a_meaning(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", preset, "--json"]) == 0
    assert [path for path, row in json.loads(capsys.readouterr().out).items() if not row["meaning"]] == []
