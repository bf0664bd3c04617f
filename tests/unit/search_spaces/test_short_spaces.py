"""Spaces of few lines: what a file may leave out, lists as choices, and everything that is wrong said at once."""

from pathlib import Path

import optuna
import pytest

from search_spaces import Parameter, Space, SpaceError, load_space
from search_spaces.space import parse_space

SHORT = """
parameters:
  a.lr: {float: [1e-4, 1e-1, log]}
  a.scale: [[0.8, 1.25], [0.5, 2]]
  a.kind: [one, two]
  a.extra: {int: [1, 8], when: {a.kind: two}}
"""
LONG = """
parameters:
  a.lr: {float: {low: 1e-4, high: 1e-1, log: true}}
  a.scale: {categorical: [[0.8, 1.25], [0.5, 2]]}
  a.kind: {categorical: [one, two]}
  a.extra: {int: {low: 1, high: 8}, when: {a.kind: [two]}}
"""
CONFIG = {"a": {"lr": 0.01, "scale": [0.5, 2.0], "kind": "one", "extra": 99, "none": None}}
"""Its `extra` lies outside the range, and does not exist."""


@pytest.fixture
def space() -> Space:
    return parse_space(SHORT).starting_from(CONFIG)


def test_short_forms_mean_the_long_ones() -> None:
    assert parse_space(SHORT).parameters == parse_space(LONG).parameters


def test_a_condition_names_what_holds_or_what_does_not() -> None:
    text = "parameters:\n  a.kind: [one, two, three]\n  a.x: {{float: [0, 1], when: {{a.kind: {0}}}}}\n"
    assert parse_space(text.format("{not: two}")).parameters == parse_space(text.format("[one, three]")).parameters
    with pytest.raises(SpaceError, match=r"must hold values of a.kind, .*, got \{'not': \['four'\]\}"):
        parse_space(text.format("{not: [four]}"))
    with pytest.raises(SpaceError, match=r"must hold values of a.kind"):
        parse_space(text.format("{not: [one, two, three]}"))


def test_a_space_is_called_as_its_file_and_published_nowhere(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SHORT)
    space = load_space(tmp_path / "mine.yaml")
    assert (space.name, space.source) == ("mine", "")


def test_what_the_baseline_leaves_out_is_the_configs(space: Space) -> None:
    assert space.baseline == {"a.lr": 0.01, "a.scale": [0.5, 2], "a.kind": "one"}


def test_a_baseline_of_the_file_goes_before_the_configs() -> None:
    space = parse_space("baseline: {a.kind: two, a.extra: 3}" + SHORT).starting_from(CONFIG)
    assert space.baseline == {"a.lr": 0.01, "a.scale": [0.5, 2], "a.kind": "two", "a.extra": 3}


def test_a_space_of_a_whole_baseline_takes_nothing_from_a_config() -> None:
    space = load_space("css_quick")
    assert space.starting_from({}) is space


def test_an_unknown_baseline_is_not_taken_for_an_empty_one() -> None:
    with pytest.raises(SpaceError, match=r"must have a baseline of a.lr, a.scale, a.kind, its file leaves that to"):
        _ = parse_space(SHORT).baseline


def test_a_config_without_a_value_is_refused_with_all_paths() -> None:
    with pytest.raises(SpaceError, match=r"baseline must hold a.lr, a.scale, for the base config has no value there"):
        parse_space(SHORT).starting_from({"a": {"kind": "one"}})


def test_a_value_of_the_config_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"baseline: a.lr must be a number in \[0.0001, 0.1\], got 5"):
        parse_space(SHORT).starting_from({"a": {**CONFIG["a"], "lr": 5}})


def test_a_whole_number_is_a_choice_of_a_config_that_holds_it_as_a_fraction() -> None:
    space = parse_space("parameters: {a.decay: [0, 1e-4]}").starting_from({"a": {"decay": 0.0}})
    assert space.baseline_params == {"a.decay": 0}


def test_samplers_see_lists_as_text_and_the_config_gets_lists(space: Space) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(space.baseline_params)
    drawn = [space.suggest(study.ask()) for _ in range(20)]
    assert {params["a.scale"] for params in drawn} == {"[0.8, 1.25]", "[0.5, 2]"}
    assert all(space.overrides(params)["a.scale"] in ([0.8, 1.25], [0.5, 2]) for params in drawn)
    assert space.overrides(drawn[0]) == space.baseline


@pytest.mark.parametrize("choice", [[0.8, 1.25], [1, [2, "x"]], "text", 3, True, None])
def test_decoding_undoes_encoding_of_every_choice(choice: object) -> None:
    parameter = Parameter("a.x", "categorical", choices=([0.8, 1.25], [1, [2, "x"]], "text", 3, True, None))
    assert parameter.decode(parameter.encode(choice, {}), {}) == choice


def test_a_list_is_a_condition() -> None:
    text = "parameters:\n  a.s: [[1, 2], [3, 4]]\n  a.x: {float: [0, 1], when: {a.s: [[3, 4]]}}\n"
    space = parse_space("baseline: {a.s: [1, 2]}\n" + text)
    assert space.overrides({"a.s": "[3, 4]", "a.x": 0.5}) == {"a.s": [3, 4], "a.x": 0.5}
    assert {params["a.s"] for params in space.edges() if "a.x" in space.overrides(params)} == {"[3, 4]"}


WRONG = """
nmae: s
parameters:
  a.lr: {float: [1, 0]}
  a.kind: [one]
  a.extra: {int: [1, 8], when: {a.kind: one}}
  a.n: {int: [1, 2.5]}
  a.fine: {float: [0, 1]}
"""


def test_all_that_is_wrong_is_said_at_once_without_what_only_follows_from_it(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(WRONG)
    with pytest.raises(SpaceError) as refused:
        load_space(tmp_path / "mine.yaml")
    head, *faults = str(refused.value).splitlines()
    assert head == f"space {tmp_path}/mine.yaml has 4 faults:"
    assert [fault.split(" must ")[0].strip() for fault in faults] == [
        "the file", "parameters.a.lr.float", "parameters.a.kind.categorical", "parameters.a.n.int.high",
    ]  # fmt: skip


def test_all_values_of_a_baseline_that_cannot_be_drawn_are_named() -> None:
    with pytest.raises(SpaceError) as refused:
        parse_space("baseline: {a.x: 2, a.y: 3, a.z: 0.5}\nparameters:\n  a.x: {float: [0, 1]}\n"
                    "  a.y: {float: [0, 1]}\n  a.z: {float: [0.1, 1], between: [a.x, 1.5]}\n")  # fmt: skip
    assert [fault.split(" must ")[0] for fault in refused.value.faults] == ["baseline: a.x", "baseline: a.y"]
