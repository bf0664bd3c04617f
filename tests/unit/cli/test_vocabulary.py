"""One word for one thing: workers and seeds are asked for alike by every command."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from invented.ablations import PLAIN, made_ablation, made_request

from harness.cli.ablate import parse_seeds
from harness.cli.main import app
from harness.reporting.next_steps import ablate_command
from harness.tuning.config import SearchConfig
from trainers.errors import UsageError

TRAINING = ("train", "tune", "ablate", "noise", "confirm", "plan", "scale")


def options(command: str) -> dict[str, Any]:
    root: Any = typer.main.get_command(app)
    return {name: option for option in root.commands[command].params for name in option.opts}


@pytest.mark.parametrize("command", TRAINING)
def test_workers_have_one_name(command: str) -> None:
    assert "--workers" in options(command)


@pytest.mark.parametrize("command", ["tune", "ablate", "plan", "scale"])
def test_the_old_name_of_workers_still_means_them(command: str) -> None:
    known = options(command)
    assert known["--workers-per-gang"] is known["--workers"]


def test_a_search_from_python_and_one_that_began_before_know_workers() -> None:
    assert SearchConfig.of(workers=2) == SearchConfig.of(workers_per_gang=2)
    assert SearchConfig.of(workers_per_gang=2).replaced(workers=4).workers_per_gang == 4
    assert "workers_per_gang" in SearchConfig.of(workers=2).model_dump()


@pytest.mark.parametrize("command", ["ablate", "noise", "confirm"])
def test_seeds_are_asked_for_in_one_form(command: str) -> None:
    said = {options(command)["--seeds"].help, options("ablate")["--seeds"].help}
    assert len(said) == 1


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", (0, 1, 2)), ("1", (0,)), ("7,", (7,)), ("4,7", (4, 7)), (" 0, 2", (0, 2)), ("0,1,2", (0, 1, 2))],
)
def test_a_lone_number_counts_seeds_and_a_list_names_them(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", ",", "0", "a", "1.5", "-1", "0,,1", "1001", str(2**31) + ","])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--seeds must"):
        parse_seeds(text)


@pytest.mark.parametrize("variants", [1, 3])
@pytest.mark.parametrize("seeds", [(0, 1, 2), (0, 1, 2, 3, 4), (7,), (0,), (3, 4)])
def test_a_command_that_is_proposed_asks_for_the_seeds_that_were_meant(
    seeds: tuple[int, ...], variants: int, tmp_path: Path
) -> None:
    made = made_request((0, 1, 2))
    runs = tuple(item for item in made.runs if variants > 1 or item.variant == PLAIN)
    ablation = made_ablation(tmp_path / "a", request=replace(made, variants=made.variants[:variants], runs=runs))
    words = shlex.split(ablate_command(ablation, tmp_path / "a", seeds))
    assert parse_seeds(words[words.index("--seeds") + 1]) == seeds
