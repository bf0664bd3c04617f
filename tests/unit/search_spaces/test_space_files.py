"""Reading a space: what the format means, and what is said about a file that does not follow it."""

from itertools import pairwise
from pathlib import Path

import pytest

from search_spaces import Space, SpaceError, load_space
from search_spaces.space import parse_space

HEAD = "name: s\nsource: a test\n"
ONE = HEAD + "baseline: {a.x: 0.5}\nparameters:\n  a.x:\n    "
FULL = """
name: s
source: a test
baseline: {a.kind: one, a.low: 0.25, a.high: 0.625, a.m: 0.99, a.n: 16, a.lr: 1e-3}
fixed: {a.unit: share}
parameters:
  a.kind: {categorical: [one, two]}
  a.extra: {int: {low: 1, high: 8, log: true}, when: {a.kind: [two]}}
  a.low: {float: {low: 0.1, high: 0.9}}
  a.high: {float: {low: 0.1, high: 1.0}, between: [a.low, 1.0]}
  a.m: {float: {low: 0.9, high: 0.999}, one_minus: true}
  a.n: {int: {low: 8, high: 32, step: 8}}
  a.lr: {float: {low: 1e-4, high: 1e-1, log: true}}
"""


@pytest.fixture
def space() -> Space:
    return parse_space(FULL)


def test_raw_params_are_what_the_sampler_sees(space: Space) -> None:
    assert space.baseline_params == {
        "a.kind": "one", "a.low": 0.25, "a.high.share": 0.5, "a.m.one_minus": 0.01, "a.n": 16, "a.lr": 0.001,
    }  # fmt: skip


def test_overrides_are_config_values_with_the_fixed_ones(space: Space) -> None:
    params = {
        "a.kind": "two", "a.extra": 3, "a.low": 0.5, "a.high.share": 0.5, "a.m.one_minus": 0.1, "a.n": 8, "a.lr": 0.01,
    }  # fmt: skip
    expected = {**params, "a.unit": "share", "a.high": 0.75, "a.m": 0.9}
    del expected["a.high.share"], expected["a.m.one_minus"]
    assert space.overrides(params) == expected


def test_a_param_whose_condition_does_not_hold_is_left_out(space: Space) -> None:
    assert "a.extra" not in space.overrides({**space.baseline_params, "a.extra": 3})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a.low": 0.95}, "a.low must be a number in [0.1, 0.9], got 0.95"),
        ({"a.low": float("nan")}, "a.low must be a number in [0.1, 0.9], got nan"),
        ({"a.n": 8.5}, "a.n must be a whole number in [8, 32], got 8.5"),
        ({"a.kind": "three"}, "a.kind must be one of ['one', 'two'], got 'three'"),
        ({"a.kind": "two"}, "must hold a.extra, it is missing"),
        ({"a.m": 0.99}, "params must be those of space s, got a.m: remove them"),
    ],
)
def test_params_that_were_not_drawn_from_the_space_are_refused(
    space: Space, change: dict[str, object], message: str
) -> None:
    with pytest.raises(SpaceError) as refused:
        space.overrides({**space.baseline_params, **change})
    assert message in str(refused.value)


LAUGHS = "\n".join(
    ["  a: &a [0, 0, 0]", *(f"  {b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in pairwise("abcdefghij"))]
)

WRONG = {
    "aliases that explode": (f"{HEAD}fixed:\n{LAUGHS}\n", "aliases stand for more than 100000 values"),
    "an alias of itself": (ONE + "&a {categorical: [1, *a]}", "aliases stand for more than 100000 values"),
    "an alias in place of text": (f"name: &a s\nsource: &b [*a, *b]\n{LAUGHS}\n", "must be YAML, got an error"),
    "a Python object": (
        ONE + "!!python/object/apply:os.system [exit]",
        "could not determine a constructor for the tag",
    ),
    "a name that a terminal obeys": (
        'name: "a\\e[31m"\nparameters: {a.x: [1, 2]}\n',
        "name must hold printable",
    ),
    "no date": (ONE + "float: {low: 2020-99-99, high: 1}", "must be YAML, got an error: month must be in 1..12"),
    "too many digits": (ONE + f"int: {{low: 0, high: {'1' * 5000}}}", "must be YAML, got an error: Exceeds the limit"),
    "too deep": (ONE + "[" * 3000 + "]" * 3000, "must be YAML, got an error: maximum recursion depth"),
    "larger than a float": (ONE + f"float: {{low: 0, high: {'1' * 500}}}", "a.x.float.high must be a number, got 111"),
    "larger than a float by its exponent": (ONE + "float: {low: 0, high: 1e400}", "must be a number, got inf"),
    "not a number": (ONE + "float: {low: .nan, high: 1}", "a.x.float.low must be a number, got nan"),
    "larger than is exact": (
        ONE + f"int: {{low: 0, high: {2**53 + 1}}}",
        "must have bounds of at most 9007199254740992",
    ),
    "not YAML": ("name: [", "must be YAML"),
    "not a mapping": ("- a", "the file must be a mapping with parameters, name, source"),
    "unknown key": (
        ONE.replace("source", "sources") + "float: {low: 0, high: 1}",
        "got 'sources': did you mean source?",
    ),
    "missing key": ("name: s\nsource: t\n", "the file must hold parameters, it is missing"),
    "empty name": (ONE.replace("name: s", "name: ''") + "float: {low: 0, high: 1}", "name must be text, got ''"),
    "no parameters": (HEAD + "baseline: {a: 1}\nparameters: {}", "parameters must map dotted config paths, got {}"),
    "repeated key": (ONE + "float: {low: 0, high: 1}\n  a.x:\n    float: {low: 0, high: 1}", "a.x appears twice"),
    "no distribution": (ONE + "one_minus: true", "a.x must hold one of float, int, categorical, got none"),
    "baseline that is none of the lists": (
        ONE.replace("0.5", "[0, 1]") + "[[1, 2], [3, 4]]",
        "baseline: a.x must be one of [[1, 2], [3, 4]], got [0, 1]",
    ),
    "two distributions": (ONE + "{float: {low: 0, high: 1}, int: {low: 0, high: 1}}", "got float, int: keep one"),
    "unknown distribution": (ONE + "flaot: {low: 0, high: 1}", "got 'flaot': did you mean float?"),
    "no high": (ONE + "float: {low: 0}", "a.x.float must hold high, it is missing"),
    "text for a number": (ONE + "float: {low: 0, high: one}", "a.x.float.high must be a number, got 'one'"),
    "infinite": (ONE + "float: {low: 0, high: .inf}", "a.x.float.high must be a number, got inf"),
    "fraction for an int": (ONE + "int: {low: 0, high: 1.5}", "a.x.int.high must be a whole number, got 1.5"),
    "empty range": (ONE + "float: {low: 1, high: 1}", "must have low < high, got low=1, high=1"),
    "log of zero": (ONE + "float: {low: 0, high: 1, log: true}", "must have low > 0 for a log scale, got low=0"),
    "log of text": (ONE + "float: {low: 1, high: 2, log: 'yes'}", "a.x.float.log must be true or false, got 'yes'"),
    "step of a float": (ONE + "float: {low: 0, high: 1, step: 1}", "got 'step'"),
    "step that does not fit": (ONE + "int: {low: 0, high: 5, step: 2}", "step must be a whole number that divides"),
    "step and log": (ONE + "int: {low: 1, high: 5, step: 2, log: true}", "must hold log or step, got both"),
    "one choice": (ONE + "categorical: [a]", "must be a list of at least two values, got ['a']"),
    "equal choices": (ONE + "categorical: [a, a]", "must be different values, got ['a', 'a']"),
    "a mapping as a choice": (ONE + "categorical: [a, [{}]]", "must be a number, text, true, false or null, got {}"),
    "equal lists": (ONE + "[[1, 2], [1, 2]]", "must be different values, got [[1, 2], [1, 2]]"),
    "a list and its text": (ONE + "[[1, 2], '[1, 2]']", "must be different values, got [[1, 2], '[1, 2]']"),
    "three bounds": (
        ONE + "float: [1, 2, 3]",
        "a.x.float must be [low, high], [low, high, log] or a mapping, got [1, 2, 3]",
    ),
    "one_minus of an int": (ONE + "{int: {low: 0, high: 1}, one_minus: true}", "must be a float for one_minus"),
    "one_minus of choices": (ONE + "{categorical: [a, b], one_minus: true}", "must be a float for one_minus"),
    "one_minus of one": (ONE + "{float: {low: 0, high: 1}, one_minus: true}", "must have high < 1 for one_minus"),
    "one_minus and log": (
        ONE + "{float: {low: 0.5, high: 0.9, log: true}, one_minus: true}",
        "one_minus is a log scale already",
    ),
    "when before": (
        ONE + "{float: {low: 0, high: 1}, when: {b: 1}}",
        "must name a categorical parameter above it without when, got 'b'",
    ),
    "when of nothing": (ONE + "{float: {low: 0, high: 1}, when: b}", "must map a categorical path to a value"),
    "between before": (
        ONE + "{float: {low: 0.1, high: 1}, between: [b, 1]}",
        "must start at a numeric parameter above it",
    ),
    "between of nothing": (ONE + "{float: {low: 0.1, high: 1}, between: b}", "must be [path, number], got 'b'"),
    "ours out of range": (
        "ours: {a.x: 0.4}\n" + ONE + "float: {low: 0.45, high: 1}",
        "ours: a.x must be a number in [0.45, 1.0], got 0.4",
    ),
    "ours without a value": (
        "ours: {b: 1}\n" + ONE + "float: {low: 0, high: 1}",
        "ours: a value of each parameter must be there, a.x is missing",
    ),
    "ours that is the baseline": (
        "ours: {a.x: 0.5}\n" + ONE + "float: {low: 0, high: 1}",
        "ours must differ from baseline, got the same values",
    ),
    "baseline out of range": (
        ONE + "float: {low: 0.6, high: 1}",
        "baseline: a.x must be a number in [0.6, 1.0], got 0.5",
    ),
    "baseline of no parameter": (
        ONE.replace("a.x: 0.5", "b: 1") + "float: {low: 0, high: 1}",
        "baseline must hold only parameters that apply to it, got b",
    ),
    "baseline of another": (
        ONE.replace("a.x: 0.5", "a.x: 0.5, b: 1") + "float: {low: 0, high: 1}",
        "must hold only parameters that apply to it, got b",
    ),
    "searched and fixed": (
        ONE + "float: {low: 0, high: 1}\nfixed: {a.x: 1}",
        "a path must be searched or fixed, got both for a.x",
    ),
    "when of a value that is none": (
        FULL.replace("[two]", "[three]"),
        "a.extra.when must hold values of a.kind, ['one', 'two'], got ['three']",
    ),
    "between in the other's range": (
        FULL.replace("between: [a.low, 1.0]", "between: [a.low, 0.8]"),
        "must end outside the range of a.low, [0.1, 0.9], got 0.8",
    ),
    "share of nothing": (
        FULL.replace("{low: 0.1, high: 1.0}", "{low: 0.0, high: 1.0}"),
        "must have 0 < low < high <= 1",
    ),
    "baseline share out of range": (
        FULL.replace("{low: 0.1, high: 1.0}", "{low: 0.6, high: 1.0}"),
        "baseline: a.high must be a share in [0.6, 1.0] of the way from a.low to 1.0, got 0.625, which is 0.5",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_malformed_file_is_refused_in_one_line_that_says_where(case: str, tmp_path: Path) -> None:
    text, message = WRONG[case]
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(SpaceError) as refused:
        load_space(path)
    assert message in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(SpaceError, match="got 'css_quik': did you mean css_quick\\?"):
        load_space("css_quik")


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"got nowhere\.yaml: No such file"):
        load_space("nowhere.yaml")
