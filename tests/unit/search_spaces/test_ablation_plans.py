"""Ablation plans: what is generated, what is refused, and that the shipped ones fit their base config."""

from __future__ import annotations

from pathlib import Path

import pytest

from search_spaces.ablation import AblationPlan, list_plans, load_plan, parse_plan
from search_spaces.parameters import SpaceError
from trainers.methods import METHODS, configured
from trainers.overrides import apply_overrides
from trainers.presets import load_preset

TABLE_1 = ("supervised", "mean_teacher", "cutmix", "contrastive", "css_cross", "css_mix")
PARTS = "{x: {with: {a.x: 1}, without: {a.x: 0}}, y: {with: {y: yes please}, without: {y: none}}}"


def plan_of(body: str) -> AblationPlan:
    return parse_plan(f"{{name: n, source: made up, {body}}}")


def made(body: str) -> dict[str, dict[str, object]]:
    return made_of(plan_of(body))


def made_of(plan: AblationPlan) -> dict[str, dict[str, object]]:
    return {variant.name: dict(variant.overrides) for variant in plan.variants}


def test_one_part_is_left_out_at_a_time() -> None:
    assert made(f"leave_one_out: {PARTS}") == {
        "full": {"a.x": 1, "y": "yes please"},
        "without x": {"a.x": 0, "y": "yes please"},
        "without y": {"a.x": 1, "y": "none"},
    }


def test_one_part_is_added_at_a_time() -> None:
    assert made(f"add_one_in: {PARTS}") == {
        "none": {"a.x": 0, "y": "none"},
        "+ x": {"a.x": 1, "y": "none"},
        "+ y": {"a.x": 0, "y": "yes please"},
    }


def test_parts_are_added_on_top_of_each_other() -> None:
    assert made(f"cumulative: {PARTS}") == {
        "none": {"a.x": 0, "y": "none"},
        "+ x": {"a.x": 1, "y": "none"},
        "+ x + y": {"a.x": 1, "y": "yes please"},
    }


def test_levels_of_one_factor_are_named_by_their_values() -> None:
    assert made("levels: {path: loss.lambda_c, values: [0.1, 1e-2, null]}") == {
        "lambda_c=0.1": {"loss.lambda_c": 0.1},
        "lambda_c=0.01": {"loss.lambda_c": 0.01},
        "lambda_c=None": {"loss.lambda_c": None},
    }


def test_what_is_fixed_is_set_in_every_variant() -> None:
    assert made("fixed: {z: 3}, variants: {a: {x: 1}, b: {x: 2}}") == {"a": {"z": 3, "x": 1}, "b": {"z": 3, "x": 2}}


def test_the_first_variant_is_the_base_unless_another_is_named() -> None:
    assert plan_of("variants: {a: {x: 1}, b: {x: 2}}").base == "a"
    assert plan_of("base: b, variants: {a: {x: 1}, b: {x: 2}}").base == "b"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("variants: {a: {x: 1}}", "variants must map at least 2 names"),
        ("variants: {a: {x: 1}, b: {x: 1}}", "variants must differ from each other, got 'b' like 'a'"),
        ("variants: {a: {x: [1]}, b: {x: 1}}", "variants.a.x must be a number, text"),
        (
            "base: c, variants: {ab: {x: 1}, cd: {x: 2}}",
            "base must be one of the variants ab, cd, got 'c': did you mean",
        ),
        ("fixed: {x: 1}, variants: {a: {x: 1}, b: {x: 2}}", "fixed or differ between variants, got both for x"),
        ("variants: {a: {x: 1}, b: {}}, levels: {path: x, values: [1, 2]}", "got variants, levels: keep one"),
        ("base: a", "got none: keep one"),
        ("cumulative: {x: {with: {a: 1}}, y: {}}", "cumulative.x must hold without, it is missing"),
        ("cumulative: {x: {with: {a: 1}, without: {b: 1}}, y: {}}", "the same paths with and without, got a, b once"),
        ("cumulative: {x: {with: {a: 1}, without: {a: 1}}, y: {}}", "must differ between with and without"),
        (
            "cumulative: {x: {with: {a: 1}, without: {a: 2}}, y: {with: {a: 3}, without: {a: 4}}}",
            "must set a path in one part, got a in several",
        ),
        ("levels: {path: x, values: [1]}", "a list of at least two values"),
        ("levels: {path: x, values: [1, 1]}", "values must be different"),
        ("methods: [a, b], published: {a: 1}", "published and published_of must come together, got no published_of"),
        (
            "methods: [a, b], published_of: x, published: {c: 1}",
            "published must name variants, got 'c': choose of a, b",
        ),
        ("methods: [a, b], published_of: x, published: {a: [1]}", "published.a must be a number, [mean, spread]"),
        ("methods: [a, b], published_of: x, published: {a: [1, 2, 3]}", "published.a must be a number, [mean, spread]"),
        ("methods: [a, b], published_of: x, published: {a: high}", "published.a must be a number, [mean, spread]"),
        ("methods: [a, b], published_of: 3, published: {a: 1}", "published_of must be text, got 3"),
        ("methods: [a, a]", "methods must be different methods"),
        ("methods: a", "methods must be a list of at least two names of methods, got 'a'"),
        ("cross: {u: {a: {x: 1}, b: {x: 2}}}", "cross must map at least 2 names"),
        ("cross: {u: {a: {x: 1}, b: {x: 2}}, v: [m, n], w: [o, p]}", "cross.w must set no path of another factor"),
        ("cross: {u: {a/b: {x: 1}, b: {x: 2}}, v: [m, n]}", "cross.u must have levels without '/', which joins them"),
        ("cross: {u: {a: {x: 1}, b: {x: 2}}, v: [m, n]}, base: a", "base must be one of the variants m, n, got 'a'"),
        ("varaints: {a: {}}", "got 'varaints': did you mean variants?"),
        ("preset: 3, variants: {a: {x: 1}, b: {}}", "preset must be text, got 3"),
    ],
)
def test_a_plan_that_says_nothing_clear_is_refused(body: str, message: str) -> None:
    with pytest.raises(SpaceError) as refusal:
        plan_of(body)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(SpaceError, match="did you mean css_components"):
        load_plan("css_component")


def test_a_file_that_is_no_plan_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    with pytest.raises(SpaceError, match=r"plan .*mine.yaml: the file must hold one of variants, "):
        load_plan(tmp_path / "mine.yaml")


def test_a_plan_needs_only_variants_and_is_called_as_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("variants: {a: {x: 1}, b: {x: 2}}\n")
    plan = load_plan(tmp_path / "mine.yaml")
    assert (plan.name, plan.source, plan.base) == ("mine", "", "a")


@pytest.mark.parametrize("name", list_plans())
def test_the_variants_of_a_shipped_plan_are_different_configs_of_its_preset(name: str) -> None:
    plan = load_plan(name)
    base = load_preset(str(plan.preset))
    hashes = set()
    for variant in plan.variants:
        sets = dict(variant.overrides)
        method = sets.pop("method", None)
        hashes.add(apply_overrides(configured(base, {"method": str(method)}) if method else base, sets).hash)
    assert len(hashes) == len(plan.variants)


def test_the_plan_of_methods_names_those_of_the_trainer() -> None:
    assert made_of(load_plan("methods")) == {name: {"method": name} for name in TABLE_1}
    others = set(made_of(load_plan("other_methods")))
    assert METHODS.keys() == {*TABLE_1, "css_mix_released"} | others
    assert others & set(TABLE_1) == {"supervised", "css_mix"}
    assert made_of(load_plan("paper_or_code"))["css_mix_released"] == {"method": "css_mix_released"}


def test_the_table_of_the_paper_has_a_published_value_for_each_of_its_variants() -> None:
    plan = load_plan("table1")
    assert plan.published is not None
    assert list(plan.published.values) == [variant.name for variant in plan.variants]
    assert (plan.preset, len(plan.variants)) == ("voc_css_92", 24)
    assert str(plan.published.values["732/css_mix"]) == "77.57 ± 0.73"
    assert str(plan.published.values["366/cutmix"]) == "~72.53 ± 0.50"
    alone = load_plan("methods").published
    assert alone is not None
    assert alone.values == {name: plan.published.values[f"92/{name}"] for name in TABLE_1}


def test_factors_that_are_crossed_give_every_combination_in_groups_with_a_base_each() -> None:
    plan = plan_of("cross: {labels: {few: {d: 2}, many: {d: 9}}, methods: [a, b]}, fixed: {z: 1}, base: b")
    assert made_of(plan) == {
        "few/a": {"z": 1, "d": 2, "method": "a"},
        "few/b": {"z": 1, "d": 2, "method": "b"},
        "many/a": {"z": 1, "d": 9, "method": "a"},
        "many/b": {"z": 1, "d": 9, "method": "b"},
    }
    assert [(variant.group, variant.level) for variant in plan.variants] == [
        ("few", "a"), ("few", "b"), ("many", "a"), ("many", "b"),
    ]  # fmt: skip
    assert plan.base == "b"


def test_the_last_of_three_factors_is_compared_within_the_levels_of_the_others() -> None:
    plan = plan_of("cross: {u: {a: {u: 1}, b: {u: 2}}, v: {c: {v: 1}, d: {v: 2}}, w: {e: {w: 1}, f: {w: 2}}}")
    assert [variant.name for variant in plan.variants if variant.group == "b/c"] == ["b/c/e", "b/c/f"]
    assert plan.base == "e"


def test_the_gain_is_that_of_three_presets() -> None:
    made = [apply_overrides(load_preset("digits_css"), variant.overrides) for variant in load_plan("gain").variants]
    assert made == [load_preset(name) for name in ("digits_supervised", "digits_css", "digits_oracle")]
