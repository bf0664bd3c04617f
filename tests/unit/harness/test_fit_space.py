"""A space meets the base config that it is searched in: its baseline, its paths, and lists that it draws."""

from pathlib import Path
from typing import Any

import pytest
from invented.searches import made_search

from harness.experiment import CssExperiment
from harness.ledger import LEDGER, read_ledger
from harness.reporting.axes import axis_of
from harness.reporting.record import read_record
from harness.reporting.reports import report_on
from harness.reporting.results import to_table
from harness.run_folder import RunInfo, read_run
from harness.tables import table_csv
from harness.tuning.config import fit_space, recorded_space, written_space
from search_spaces import SpaceError
from search_spaces.space import Space, parse_space
from trainers.errors import UsageError

EXPERIMENT = CssExperiment.of("digits_css", {"optimizer.lr": 0.02})
SHORT = """
parameters:
  optimizer.lr: {float: [1e-3, 1e-1, log]}
  augment.weak.scale: [[0.9, 1.11], [1, 1], [0.5, 2]]
"""


@pytest.fixture
def space() -> Space:
    return fit_space(parse_space(SHORT, "mine"), EXPERIMENT)


def test_a_search_starts_from_the_config_it_searches(space: Space) -> None:
    scale = list(EXPERIMENT.base.augment.weak.scale)
    assert space.baseline == {"optimizer.lr": 0.02, "augment.weak.scale": scale}
    assert EXPERIMENT.resolve(space.baseline)[1] == EXPERIMENT.base.hash


def test_the_first_space_of_the_readme_fits_the_preset_it_is_for() -> None:
    text = (Path(__file__).parents[3] / "search_spaces" / "README.md").read_text()
    block = text.split("```yaml\n")[1].split("```")[0]
    space = fit_space(parse_space(block, "mine"), CssExperiment.of("digits_css"))
    assert [parameter.kind for parameter in space.parameters] == ["float", "int", "categorical", "categorical"]
    assert len(block.splitlines()) == 5


def test_what_is_set_by_hand_is_not_searched_where_the_file_has_a_baseline() -> None:
    with pytest.raises(UsageError, match=r"optimizer.lr is searched there"):
        fit_space(parse_space("baseline: {optimizer.lr: 0.01}" + SHORT), EXPERIMENT)


@pytest.mark.parametrize("given", [{"settings": {"css.label_strategy": "mix"}}, {"method": "cps"}])
def test_what_a_searched_method_sets_is_not_set_by_hand(given: dict[str, Any]) -> None:
    text = "baseline: {method: css_mix}\nparameters:\n  method: [css_mix, cps]\n"
    with pytest.raises(UsageError, match=r"[a-z_.]+ is set by a method there: remove the setting"):
        fit_space(parse_space(text), CssExperiment.of("digits_css", **given))
    space = fit_space(parse_space(text), EXPERIMENT)
    assert EXPERIMENT.resolve(space.baseline)[0]["css"]["label_strategy"] == "mix"


def test_a_method_that_is_none_is_refused() -> None:
    text = "baseline: {method: css_mix}\nparameters:\n  method: [css_mix, csp]\n"
    with pytest.raises(UsageError, match=r"a method must be one of .*, got 'csp': did you mean cps\?"):
        fit_space(parse_space(text), EXPERIMENT)


def test_a_setting_of_a_method_gives_way_to_other_settings() -> None:
    made = CssExperiment.of("digits_css", {"method": "cps", "loss.lambda_u": 6.0})
    assert made.config == CssExperiment.of("digits_css", {"loss.lambda_u": 6.0}, "cps").config
    assert (made.base.model.students, made.base.loss.lambda_u) == (2, 6.0)


def test_all_paths_that_the_config_does_not_have_are_said_at_once() -> None:
    text = "parameters:\n  optimizer.lrr: {float: [0, 1]}\n  loss.lambda: [1, 2]\n  optimizer.lr: {float: [0.01, 1]}\n"
    with pytest.raises(UsageError) as refused:
        fit_space(parse_space(text), EXPERIMENT)
    head, *lines = str(refused.value).splitlines()
    assert head.rstrip() == "space space must fit the config:"
    assert [line.split(":")[0].split()[-1] for line in lines] == ["'optimizer.lrr'", "'loss.lambda'"]


def test_a_path_below_a_section_that_is_away_needs_a_baseline() -> None:
    text = "parameters:\n  augment.labelled.jitter: {float: [0, 1]}\n"
    assert EXPERIMENT.base.augment.labelled is None
    with pytest.raises(
        UsageError, match=r"baseline must hold augment.labelled.jitter, for the base config has no value"
    ):
        fit_space(parse_space(text), EXPERIMENT)


def test_a_preset_outside_of_the_range_is_refused() -> None:
    with pytest.raises(UsageError, match=r"space s must fit the config: baseline: optimizer.lr must be a number in"):
        fit_space(parse_space("parameters: {optimizer.lr: {float: [0.1, 1]}}", "s"), EXPERIMENT)


def test_a_search_that_has_begun_has_the_space_that_it_began_with(space: Space) -> None:
    request = {"options": {"space": "there/mine.yaml"}, "space": space.text}
    info = RunInfo.of("search", EXPERIMENT, "dev/miou", request, digest="d")
    assert recorded_space(info) == space
    assert fit_space(written_space(info), EXPERIMENT) == space  # where it goes on without its file


def test_a_space_of_an_old_search_is_read_without_a_config(tmp_path: Path) -> None:
    made_search(tmp_path / "old")
    assert recorded_space(read_run(tmp_path / "old")).name == "css_quick"


def test_lists_are_shown_as_lists_in_ledger_leaderboard_and_report(space: Space, tmp_path: Path) -> None:
    folder = made_search(tmp_path / "mine-001", space=space)
    lists = [[0.9, 1.11], [1, 1], [0.5, 2], [0.9, 1.11], [1, 1], [0.5, 2]]
    trials = read_ledger(folder / LEDGER).trials
    assert [trials[number].overrides["augment.weak.scale"] for number in range(6)] == lists
    table = to_table(read_record(folder).results)
    shown = {row[1].split()[0]: row[-1] for row in table.texts()}
    assert shown["2"] == "[0.5, 2]"
    assert '"[0.5, 2]"' in table_csv(table)
    page = report_on(folder)[0]
    assert "[0.5, 2]" in page.read_text()


def test_an_axis_of_lists_has_a_place_for_each(space: Space) -> None:
    axis = axis_of(space.parameters[1], [])
    assert [axis.place(choice) for choice in space.parameters[1].choices] == [1 / 6, 1 / 2, 5 / 6]
    assert [label for _, label in axis.ticks()] == ["[0.9, 1.11]", "[1, 1]", "[0.5, 2]"]


def test_a_space_of_python_without_a_baseline_is_refused_by_itself() -> None:
    with pytest.raises(SpaceError, match=r"space mine must have a baseline of optimizer.lr"):
        _ = parse_space(SHORT, "mine").baseline_params
