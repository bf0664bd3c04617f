"""Words `path=value`: what the field at the path holds decides how they are read, and every value has such a word."""

from __future__ import annotations

from typing import Any

import pytest

from trainers.errors import ConfigError
from trainers.overrides import apply_overrides, as_setting, flatten, parse_settings
from trainers.presets import PRESETS, load_preset


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("data.labelled_from=*", "*"),
        ("data.train_from=0006", "0006"),
        ("data.val=no", "no"),
        ("data.root=2024", "2024"),
        ("data.mask_pattern={stem}_mask.png", "{stem}_mask.png"),
        ('data.mask_pattern="{stem} #1.png"', "{stem} #1.png"),
        ("data.mask_pattern={stem} #1.png", "{stem} #1.png"),
        ("model.encoder=null", None),
        ("model.encoder=", None),
        ("data.classes=sky,building", ["sky", "building"]),
        ("data.classes=no, road sign", ["no", "road sign"]),
        ("data.classes=[sky, 'a,b']", ["sky", "a,b"]),
        ("data.ignore_values=255", [255]),
        ("data.ignore_values=11,255", [11, 255]),
        ("augment.weak.crop=96,64", [96, 64]),
        ("augment.weak.crop=null", None),
        ("loss.class_weights=auto", "auto"),
        ("loss.class_weights=1,2.5", [1, 2.5]),
        ("data.values={0: other, 255: road}", {0: "other", 255: "road"}),
        ("data.labelled=40", 40),
        ("data.labelled=lists/a b.txt", "lists/a b.txt"),
        ("model.pool_norm=true", True),
        ("no.such.path=*", "*"),
    ],
)
def test_a_word_is_read_as_its_field_is_written(word: str, value: object) -> None:
    path = word.partition("=")[0]
    read = parse_settings([word])[path]
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize("word", ["seed=*", "loss.lambda_u=[1", "data.classes=[a", "data.values={0: a, 1"])
def test_a_word_that_is_neither_text_nor_yaml_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="must have a YAML value, got "):
        parse_settings([word])


@pytest.mark.parametrize("name", ["digits_css", "folder_css", "camvid_lite0", "camvid_two_drives", "voc_css_92"])
def test_every_value_of_a_config_has_a_word_that_sets_it(name: str) -> None:
    config = load_preset(name)
    values = flatten(config.model_dump(mode="json"))
    words = [as_setting(path, value) for path, value in values.items()]
    assert apply_overrides(PRESETS[name](), parse_settings(words)) == config


@pytest.mark.parametrize(
    "settings",
    [
        {"data.classes": ["no", "a, b", "1e3", "*", '"'], "data.mask_pattern": "{stem} 'x' #1.png"},
        {"data.values": {0: "no", 255: "a: b", 1: "ignore"}, "data.classes": ["no", "a: b"]},
        {"data.palette": {"a": [1, 2, 3], "1": [0, 0, 0]}, "data.classes": ["a", "1"], "data.train_from": "null"},
        {"data.val": "no", "data.labelled_from": "[ab]*", "optimizer.lr": 1e-7, "data.labelled": "1e3"},
    ],
)
def test_awkward_values_have_words_that_set_them(settings: dict[str, Any]) -> None:
    words = [as_setting(path, value) for path, value in settings.items()]
    base = load_preset("folder_css")
    assert apply_overrides(base, parse_settings(words)) == apply_overrides(base, settings)


@pytest.mark.parametrize(("height", "near"), [(90, "88 or 92"), (17, "16 or 20")])
def test_a_size_that_is_no_multiple_is_refused_with_the_two_nearest(height: int, near: str) -> None:
    with pytest.raises(ConfigError) as raised:
        apply_overrides(load_preset("folder_css"), {"data.height": height})
    assert str(raised.value) == f"data.height: must be a multiple of 4, got {height}: set {near}"
