"""A config is valid or does not exist; every field is hashed, and read by somebody."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError
from reference.tiny import tiny_config
from reference.vits import DPT

import trainers
from trainers.config import AugmentConfig, FolderData, LabelledAugmentConfig, ModelConfig, TrainConfig
from trainers.config.base import Frozen, added, hashed
from trainers.errors import ConfigError
from trainers.overrides import apply_overrides, flatten
from trainers.presets import PRESETS, load_preset, supervised

FOLDER = TrainConfig(data=FolderData(root=Path("images"), classes=("sky", "road"), height=32, width=32))

ENCODER = tiny_config({"model.arch": "light", "model.encoder": "resnet18"})
VIT = tiny_config(DPT)
MOMENTARY = tiny_config({"ema.prototype_momentum": 0.0})
LOGITS = tiny_config({"css.label_strategy": "logit", "loss.lambda_c": 0.0})
OF_A_VIT = ("model.drop_path", "model.checkpointing", "optimizer.layer_decay")


def fields(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Path, value and annotation of every field of the tree."""
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, info.annotation


def others(value: Any, annotation: Any) -> list[Any]:
    """Values that a field may take instead; which of them it accepts depends on the field."""
    if get_origin(annotation) is Literal:
        return [choice for choice in get_args(annotation) if choice != value]
    if value is None:
        by_value, by_name = {9: "sky", 7: "road"}, {"sky": (0, 0, 9), "road": (0, 0, 7)}
        groups = {"one": ["road"]}
        return [
            (16, 16), tuple(1.0 + at for at in range(11)), {"scale": (0.5, 1.5)}, by_value, by_name, groups, "names.txt"
        ]  # fmt: skip
    if isinstance(value, Path):
        return [value / "other"]
    if isinstance(value, str):
        return [f"{value}-other", f"{value}.pt"]
    if isinstance(value, tuple) and not value:
        return [(choice,) for choice in get_args(get_args(annotation)[0])]
    if isinstance(value, tuple):
        varied = [(*value[:-1], other) for other in others(value[-1], None)]
        return [*varied, (*value, *others(value[-1], None)[:1]), value[:-1]]
    if isinstance(value, int):
        return [value + 1, value + 4, 2 * value, value + 8, value - 1]
    return [0.9 * value, value + 0.01, value - 0.01]


BEGINS = {
    tiny_config(): "", FOLDER: "data.", ENCODER: "model.encoder", LOGITS: "model.students", VIT: OF_A_VIT,
    MOMENTARY: "model.representation",
}  # fmt: skip
"""Fields that are changed, by the config that accepts another value."""
ELSEWHERE = ("model.encoder", "model.students", "model.representation", *OF_A_VIT)
CHANGES = [
    pytest.param(config, path, value, annotation, id=f"{config.data.name} {path}")
    for config, begins in BEGINS.items()
    for path, value, annotation in fields(config)
    if path != "data.name" and path.startswith(begins) and (begins or path not in ELSEWHERE)
]


@pytest.mark.filterwarnings("ignore:thresholds.delta_s")
@pytest.mark.parametrize(("config", "path", "value", "annotation"), CHANGES)
def test_changing_a_field_changes_the_hash(config: TrainConfig, path: str, value: Any, annotation: Any) -> None:
    changed = []
    for other in others(value, annotation):
        if other == value:
            continue
        try:
            changed.append(apply_overrides(config, {path: other}))
        except ConfigError:
            continue
    assert changed, f"no other value of {path} was accepted"
    assert config.hash not in {other.hash for other in changed}


def test_another_kind_of_data_changes_the_hash() -> None:
    assert TrainConfig(data=FOLDER.data).hash != TrainConfig().hash


def test_equal_configs_have_equal_hashes() -> None:
    assert tiny_config().hash == apply_overrides(TrainConfig(), flatten(tiny_config().model_dump())).hash


def test_every_field_is_read_somewhere() -> None:
    folder = Path(trainers.__file__).parent
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in folder.rglob("*.py")]
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names = {path.rsplit(".", 1)[-1] for config in (tiny_config(), FOLDER) for path, _, _ in fields(config)}
    # `data.name` chooses the class of the data; sizes of the splits of digits are read by the name of the split.
    assert names - read - {"name", "labelled", "unlabelled", "dev", "val"} == set()


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        tiny_config().loss.lambda_u = 2.0


NAMES = {"data.name": "folder", "data.root": "x", "data.height": 32, "data.width": 32}
WRONG = {
    "a class twice": ({**NAMES, "data.classes": ["a", "b", "a"]}, ["classes must be different names", "got 'a'"]),
    "a class without a name": ({**NAMES, "data.classes": ["a", " "]}, ["classes must be different names", "got ' '"]),
    "a class that a terminal obeys": ({**NAMES, "data.classes": ["a", "\x1b[2J"]}, ["of printable letters, got"]),
    "delta_w above delta_s": (
        {"thresholds.delta_w": 0.98, "thresholds.delta_s": 0.9},
        ["delta_w must be below delta_s", "got delta_w=0.98, delta_s=0.9", "lower delta_w or raise delta_s"],
    ),
    "delta_w equal to delta_s": (
        {"thresholds.delta_w": 0.9, "thresholds.delta_s": 0.9},
        ["delta_w must be below delta_s", "got delta_w=0.9, delta_s=0.9"],
    ),
    # 1 / (1 + 10 exp(-2 / 0.5)) = 0.845
    "delta_w that no pixel reaches": (
        {"thresholds.delta_w": 0.9, "thresholds.delta_s": 0.97, "css.indicator_temperature": 0.5},
        ["thresholds.delta_w", "cannot exceed 0.845 with K=11", "indicator_temperature=0.5", "got 0.9", "of_maximum"],
    ),
    "digits larger than their cell": (
        {"data.image_size": 32, "data.grid": 4, "data.digit_size": (6, 12)},
        ["digit_size", "8 px", "got (6, 12)", "change digit_size, image_size or grid"],
    ),
    "a path with a slip": ({"los.lambda_u": 0.5}, ["got 'los.lambda_u'", "did you mean loss.lambda_u"]),
    "a field without its section": ({"lambda_u": 0.5}, ["got 'lambda_u'", "did you mean loss.lambda_u"]),
    "a section": ({"loss": 0.5}, ["a config path must exist, got 'loss'"]),
    "a field of other data": ({"data.root": "images"}, ["a config path must exist, got 'data.root'"]),
    "a number out of range": ({"optimizer.lr": -1.0}, ["optimizer.lr", "greater than 0", "got -1.0"]),
    "a number that is none": ({"optimizer.lr": float("nan")}, ["optimizer.lr", "finite", "got nan"]),
    "a word for a number": ({"schedule.steps": "many"}, ["schedule.steps", "integer", "got 'many'"]),
    "a word that is no choice": ({"css.label_strategy": "both"}, ["css.label_strategy", "'mix'", "got 'both'"]),
    "groups that do not divide": (
        {"loss.queries": 16, "loss.negative_groups": 3},
        ["negative_groups must divide queries (16), got 3"],
    ),
    "a range the wrong way round": ({"augment.weak.scale": (2.0, 1.0)}, ["augment.weak", "scale", "got (2.0, 1.0)"]),
    "a range of the blur the wrong way round": (
        {"augment.strong.blur_sigma": (2.0, 1.0)},
        ["augment.strong", "blur_sigma must be (smallest, largest)", "got (2.0, 1.0)", "swap them"],
    ),
    "a crop that is a speck": (
        {"augment.weak.crop": (33, 15)},
        ["augment.weak", "crop must be at least 16 pixels", "got (33, 15)", "enlarge it"],
    ),
    "a window that is a speck": (
        {"evaluation.window": (15, 33)},
        ["evaluation", "window must be at least 16 pixels", "got (15, 33)", "enlarge it"],
    ),
    "a labelled crop of its own": (
        {"augment.labelled": {"scale": (0.5, 1.5), "crop": (16, 16)}},
        ["augment.labelled.crop", "not permitted", "got (16, 16)"],
    ),
    "a box too large for its image": (
        {"augment.strong.box_area": (0.1, 0.6)},
        ["augment.strong", "box_area must be at most 0.5", "box_aspect=(0.5, 2.0)", "got (0.1, 0.6)", "lower it"],
    ),
    "a box too wide for its image": (
        {"augment.strong.box_aspect": (0.25, 1.0)},
        ["augment.strong", "box_area must be at most 0.25", "box_aspect=(0.25, 1.0)", "got (0.1, 0.5)"],
    ),
    "a box too high for its image": (
        {"augment.strong.box_aspect": (1.0, 2.5)},
        ["augment.strong", "box_area must be at most 0.4", "box_aspect=(1.0, 2.5)"],
    ),
    "an area the wrong way round": (
        {"augment.strong.box_area": (0.5, 0.1)},
        ["augment.strong", "box_area must be (smallest, largest)", "got (0.5, 0.1)"],
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_answered_in_one_line_with_the_rule_and_the_value(mistake: str) -> None:
    overrides, parts = WRONG[mistake]
    with pytest.raises(ConfigError) as refused:
        apply_overrides(tiny_config(), overrides)
    message = str(refused.value)
    assert [part for part in parts if part not in message] == []
    assert "\n" not in message


def test_an_unknown_preset_is_answered_with_a_near_one() -> None:
    with pytest.raises(ConfigError, match=r"got 'digits_cs': did you mean digits_css\?$"):
        load_preset("digits_cs")


def test_a_delta_s_that_excludes_nothing_warns_with_the_bound() -> None:
    with pytest.warns(UserWarning, match=r"delta_s=0\.9 excludes no pixel.*cannot exceed 0\.845 with K=11"):
        apply_overrides(tiny_config(), {"thresholds.delta_s": 0.9, "css.indicator_temperature": 0.5})


def test_a_gate_that_no_pixel_can_pass_is_refused_with_the_bound() -> None:
    released = {"css.unsupervised_gate": "own", "css.label_strategy": "cross", "css.indicator_temperature": 0.5}
    with pytest.raises(ConfigError, match=r"css\.unsupervised_gate=own can reach: .* 0\.845 with K=11.*got 0\.97"):
        apply_overrides(tiny_config(), released | {"thresholds.delta_u": 0.97})
    assert apply_overrides(tiny_config(), released | {"thresholds.delta_u": 0.8}).thresholds.delta_u == 0.8


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "overrides",
    [{"thresholds.unit": "of_maximum"}, {"loss.lambda_c": 0.0}, {"css.indicator": "confidence"}],
    ids=["relative to the bound", "no contrastive loss", "another indicator"],
)
def test_thresholds_above_the_bound_are_fine_where_it_does_not_apply(overrides: dict[str, Any]) -> None:
    above = {"thresholds.delta_w": 0.9, "thresholds.delta_s": 0.97, "css.indicator_temperature": 0.5}
    assert apply_overrides(tiny_config(), above | overrides).thresholds.delta_w == 0.9


def test_thresholds_relative_to_the_maximum_are_those_of_their_own_indicator() -> None:
    config = apply_overrides(
        tiny_config(),
        {"thresholds.unit": "of_maximum", "css.valid_indicator": "confidence", "css.indicator_temperature": 0.5,
         "thresholds.delta_w": 0.5, "thresholds.delta_s": 0.9},
    )  # fmt: skip
    assert (config.delta_w_probability, config.delta_s_probability) == pytest.approx((0.5, 0.7606), abs=1e-4)


def test_thresholds_relative_to_the_maximum_are_multiplied_by_it() -> None:
    config = apply_overrides(
        tiny_config(),
        {
            "thresholds.unit": "of_maximum",
            "thresholds.delta_w": 0.5,
            "thresholds.delta_s": 0.9,
            "css.indicator_temperature": 0.5,
        },
    )
    assert (config.delta_w_probability, config.delta_s_probability) == pytest.approx((0.4226, 0.7606), abs=1e-4)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_as_a_whole(name: str) -> None:
    config = load_preset(name)
    assert type(config).model_validate(config.model_dump()).hash == config.hash


def test_the_preset_of_own_folders_is_the_measured_one_without_its_data() -> None:
    own, measured = (flatten(load_preset(name).model_dump()) for name in ("folder_css", "camvid_two_drives"))
    differing = {path for path in own if own[path] != measured[path] and not path.startswith("data.")}
    unread = {"model.backbone"}  # by the tiny network
    assert differing - unread == {"loss.class_weights", "thresholds.unit", "schedule.evaluate_every"}
    assert own["loss.class_weights"] == "auto"


def test_supervised_training_uses_no_unlabelled_image() -> None:
    assert not supervised(tiny_config()).uses_unlabelled


def test_a_path_below_a_section_that_is_null_starts_from_its_defaults_and_null_takes_it_away() -> None:
    config = apply_overrides(tiny_config(), {"augment.labelled.jitter": 0.8, "augment.labelled.hue": 0.2})
    assert config.augment.labelled == LabelledAugmentConfig(jitter=0.8, hue=0.2)
    changed = apply_overrides(config, {"augment.labelled.hue": 0.3})
    assert changed.augment.labelled == LabelledAugmentConfig(jitter=0.8, hue=0.3)
    assert apply_overrides(config, {"augment.labelled": None}) == tiny_config()


@pytest.mark.parametrize("path", ["augment.labelled.jiter", "augment.weak", "loss.class_weights.sky", "css.none.at"])
def test_a_path_that_is_none_is_refused_in_one_line(path: str) -> None:
    with pytest.raises(ConfigError) as raised:
        apply_overrides(tiny_config(), {path: None})
    assert "\n" not in str(raised.value)
    assert path.split(".")[1] in str(raised.value)


def test_overrides_leave_every_other_field() -> None:
    before, after = flatten(tiny_config().model_dump()), flatten(tiny_config({"loss.lambda_u": 0.25}).model_dump())
    assert {path for path in before if before[path] != after[path]} == {"loss.lambda_u"}


def test_other_data_starts_from_its_own_defaults() -> None:
    config = apply_overrides(
        tiny_config(),
        {
            "data.name": "folder",
            "data.root": "images",
            "data.classes": ["sky", "road"],
            "data.height": 32,
            "data.width": 32,
        },
    )
    assert config.data == FOLDER.data


class Inner(Frozen):
    kept: int = 1
    later: int = added(2)


class Outer(Frozen):
    inner: Inner = Inner()
    late: float | None = added(None)


def test_a_field_that_came_later_is_hashed_where_it_is_set() -> None:
    assert hashed(Outer()) == {"inner": {"kept": 1}}
    changed = Outer(inner=Inner(later=3), late=0.5)
    assert hashed(changed) == {"inner": {"kept": 1, "later": 3}, "late": 0.5}


def test_the_network_of_before_is_hashed_as_before() -> None:
    names = "arch backbone stem backbone_weights output_stride aspp_width head_width width representation_dim"
    assert set(hashed(ModelConfig())) == {*names.split(), "representation_init", "norm"}


def test_the_augmentation_of_before_is_hashed_as_before() -> None:
    strong = "scale shift flip jitter brightness contrast saturation hue blur blur_sigma mix mix_probability"
    names = {section: set(values) for section, values in hashed(AugmentConfig()).items()}
    assert names == {"weak": {"scale", "flip", "crop"}, "strong": set(strong.split())}
