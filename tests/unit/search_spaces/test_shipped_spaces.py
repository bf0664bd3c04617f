"""The spaces that come with the package: every value they can draw makes a valid config."""

import itertools
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import Parameter, Space, list_spaces, load_space
from trainers.config import TrainConfig
from trainers.methods import METHODS, with_method
from trainers.overrides import apply_overrides
from trainers.presets import load_preset

SPACES = list_spaces()
PUBLISHED = ["css", "css_quick"]
PRESET_OF = {
    "encoder": "camvid_lite0", "vit": "voc_dinov2_s_92", "streams": "voc_unimatch_v2_s_92",
    "pretrained": "camvid_lite0", "pretrained_supervised": "camvid_lite0",
    "methods": "digits_css",
    "input_space": "camvid_css",
}  # fmt: skip
"""Spaces for presets of a kind, and one of them."""


def base_of(name: str) -> TrainConfig:
    return load_preset(PRESET_OF[name]) if name in PRESET_OF else TrainConfig()


def configured(name: str, overrides: dict[str, Any]) -> TrainConfig:
    return apply_overrides(base_of(name), with_method(overrides))


def raw_values(parameter: Parameter) -> st.SearchStrategy[object]:
    if parameter.kind == "categorical":
        return st.sampled_from(parameter.raw_choices)
    return st.floats(*parameter.raw_range)


def every_param(space: Space) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({parameter.name: raw_values(parameter) for parameter in space.parameters})


def test_the_shipped_spaces_are_listed_by_name() -> None:
    assert {*PUBLISHED, *PRESET_OF} == set(SPACES)
    assert all(load_space(name).name == name for name in SPACES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_baseline_is_the_published_configuration(name: str) -> None:
    space = load_space(name)
    written = yaml.safe_load(space.text)
    assert space.baseline == written["baseline"] | written.get("fixed", {})
    published = load_preset("voc_css_92")
    assert apply_overrides(published, space.baseline) == apply_overrides(published, space.fixed)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_ours_is_a_configuration_of_its_own_and_tried_second(name: str) -> None:
    space = load_space(name)
    assert space.ours_params is not None
    ours = space.overrides(space.ours_params)
    different = {path for path in ours if ours[path] != space.baseline[path]}
    assert different == {"loss.lambda_c", "thresholds.delta_u"}
    digits = load_preset("digits_css")
    assert apply_overrides(digits, ours) == apply_overrides(digits, space.fixed)


@pytest.mark.parametrize("name", sorted(PRESET_OF.keys() - {"methods"}))
def test_the_baseline_of_a_space_of_encoders_is_the_preset_that_it_is_for(name: str) -> None:
    preset = base_of(name)
    assert apply_overrides(preset, load_space(name).baseline) == preset


@pytest.mark.parametrize("name", ["encoder", "vit"])
def test_a_frozen_encoder_has_no_learning_rate(name: str) -> None:
    space = load_space(name)
    frozen = space.overrides({p.name: "all" if p.name == "model.freeze" else p.ends[0] for p in space.parameters})
    assert {"optimizer.encoder_lr_factor", "optimizer.layer_decay", "model.drop_path"} & frozen.keys() == set()


def test_a_space_of_methods_searches_of_each_what_it_reads_and_leaves_the_rest_to_it() -> None:
    space = load_space("methods")
    drawn = {p.name: p.ends[-1] for p in space.parameters}
    for method in space.parameters[0].choices:
        overrides = space.overrides({**drawn, "method": method})
        config = configured("methods", overrides)
        own = {path: value for path, value in overrides.items() if path != "method"}
        assert config == apply_overrides(apply_overrides(base_of("methods"), METHODS[str(method)]), own)
        assert ("loss.lambda_u" in own) == config.uses_unlabelled
        assert config.loss.lambda_c == 0 or "loss.lambda_c" in own


def test_a_baseline_is_searched_as_its_rival_is() -> None:
    space, rival = load_space("pretrained_supervised"), load_space("pretrained")
    assert [parameter for parameter in rival.parameters if parameter in space.parameters] == list(space.parameters)


@pytest.mark.parametrize("name", SPACES)
def test_both_ends_of_every_range_make_a_valid_config(name: str) -> None:
    space = load_space(name)
    # Everything at one end, by label strategy, then each parameter at each end with the others at the baseline's.
    for choices in itertools.product(*(p.ends for p in space.parameters if p.kind == "categorical")):
        for end in (0, 1):
            chosen = iter(choices)
            params = {p.name: next(chosen) if p.kind == "categorical" else p.ends[end] for p in space.parameters}
            configured(name, space.overrides(params))
    for params in space.edges():
        configured(name, space.overrides(params))


@pytest.mark.parametrize("name", SPACES)
@given(data=st.data())
def test_any_draw_makes_a_valid_config_with_conditional_parameters_only_where_they_apply(
    name: str, data: st.DataObject
) -> None:
    space = load_space(name)
    overrides = space.overrides(data.draw(every_param(space)))
    config = configured(name, overrides)
    assert config.thresholds.delta_w < config.thresholds.delta_s
    assert ("css.cross_warmup" in overrides) == (
        "css.cross_warmup" in space.paths and config.css.label_strategy == "cross"
    )
    assert overrides.keys() <= {*space.paths, *space.fixed}


@pytest.mark.parametrize("name", SPACES)
def test_optuna_draws_what_overrides_accepts(name: str) -> None:
    space = load_space(name)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        trial = study.ask()
        params = space.suggest(trial)
        assert params == trial.params
        space.overrides(params)
        study.tell(trial, 0.0)


@pytest.mark.parametrize("name", SPACES)
def test_an_enqueued_baseline_comes_back_as_the_published_values(name: str) -> None:
    space = load_space(name)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(space.baseline_params)
    assert space.overrides(space.suggest(study.ask())) == space.baseline


def test_thresholds_on_the_indicator_are_relative_to_what_it_can_reach() -> None:
    assert load_space("css").fixed["thresholds.unit"] == "of_maximum"
