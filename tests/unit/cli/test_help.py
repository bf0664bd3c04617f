"""The help of every command at 80 columns: nothing is cut, everything is explained, and examples are real."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from invented.searches import made_training

from harness.cli.help import page, parts_of, sections_of
from harness.cli.main import app, run
from harness.cli.tune import PANELS
from harness.tuning.config import HIDDEN, SearchConfig

ROOT = Path(__file__).parents[3]


def commands_below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands_below(child, (*words, name))


COMMANDS = {" ".join(words): command for words, command in commands_below(typer.main.get_command(app), ("s4",))}


def context_of(line: str) -> Any:
    command = COMMANDS[line]
    return command.context_class(command, info_name=line, help_option_names=["-h", "--help"])


@pytest.fixture(params=COMMANDS)
def line(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_all_commands_are_here() -> None:
    assert {"s4", "s4 tune", "s4 list", "s4 space new", "s4 data check"} <= COMMANDS.keys()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_page_holds_every_name_and_every_word_whole(line: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = page(COMMANDS[line], context_of(line))
    assert "…" not in text
    examples = {f"  {example}" for example in parts_of(COMMANDS[line].help)[1]}
    assert max(len(row) for row in text.splitlines() if row not in examples) <= min(width, 100)
    sections = sections_of(COMMANDS[line], context_of(line))
    left = max(len(entry.name) for entries in sections.values() for entry in entries) + 4
    for title, entries in sections.items():
        rows = text[text.index(f"\n{title}:\n") :].split("\n\n")[0].splitlines()[2:]
        assert [row[:left].strip() for row in rows if row[:left].strip()] == [entry.name for entry in entries]
        assert " ".join(row[left:] for row in rows).split() == " ".join(entry.text for entry in entries).split()


def test_paragraphs_are_broken_by_the_width_and_not_by_the_source(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = page(COMMANDS[line], context_of(line)).splitlines()
    for paragraph in parts_of(COMMANDS[line].help)[0]:
        start = next(index for index, row in enumerate(rows) if row and paragraph.startswith(row))
        end = rows.index("", start)
        assert " ".join(rows[start:end]) == paragraph
        assert all(len(row) + 1 + len(after.split()[0]) > 80 for row, after in pairwise(rows[start:end]))


def test_every_command_has_examples_that_fit_into_80_columns(line: str) -> None:
    examples = parts_of(COMMANDS[line].help)[1]
    assert examples
    assert all(example.startswith(line) and len(example) <= 78 for example in examples)


def test_every_example_is_a_line_that_the_command_takes(line: str) -> None:
    for example in parts_of(COMMANDS[line].help)[1]:
        words = shlex.split(example.partition(" > ")[0])
        called = max((name for name in COMMANDS if words[: len(name.split())] == name.split()), key=len)
        rest = words[len(called.split()) :]
        COMMANDS[called].make_context(called, rest)  # refuses options that are none, values that are no numbers
        assert rest or called != "s4"


def test_every_option_says_what_it_takes_and_what_it_is_for(line: str) -> None:
    for parameter in COMMANDS[line].get_params(context_of(line)):
        assert parameter.help, parameter.name
        built_in = parameter.name in ("help", "install_completion", "show_completion")
        assert built_in or getattr(parameter, "is_flag", False) or parameter.metavar, parameter.name


def test_help_is_asked_for_by_a_letter_everywhere(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = line.split()[1:]
    assert run([*words, "--help"]) == 0
    long = capsys.readouterr().out
    assert run([*words, "-h"]) == 0
    assert capsys.readouterr().out == long
    assert "-h, --help" in long


def test_commands_are_listed_by_subject() -> None:
    sections = sections_of(COMMANDS["s4"], context_of("s4"))
    assert list(sections) == ["Options", "Run", "Compare", "Models", "Records", "Data and settings"]
    assert {"train", "tune"} <= {entry.name for entry in sections["Run"]}


def test_options_of_a_search_are_listed_by_subject_and_none_is_left_over() -> None:
    sections = sections_of(COMMANDS["s4 tune"], context_of("s4 tune"))
    assert list(sections) == ["Input", "Sampler and scheduler", "Resources", "Limits", "Records", "Options"]
    assert [entry.name for entry in sections["Options"]] == ["-h, --help"]
    assert {name for names in PANELS.values() for name in names} == SearchConfig.model_fields.keys() - {*HIDDEN}
    assert sections["Input"][0].name == "[PRESET]"


def slow_imports(*arguments: str, folder: Path = ROOT, **environment: str) -> tuple[str, str]:
    """What a command wrote, and which slow packages it imported."""
    code = (
        f"import sys; from harness.cli.main import run; run({list(arguments)!r})\n"
        "sys.stderr.write(','.join({'torch', 'ray', 'mlflow', 'optuna', 'numpy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT), **environment})  # fmt: skip
    return done.stdout, done.stderr


def test_versions_are_told_without_importing_what_they_are_of() -> None:
    out, imported = slow_imports("--version")
    told = dict(row.split() for row in out.splitlines())
    assert list(told) == ["s4-harness", "python", "torch", "ray", "optuna", "mlflow"]
    assert told["optuna"] == metadata.version("optuna")
    assert imported == ""


@pytest.mark.parametrize(
    ("words", "completed"),
    [("s4 tu", "tune"), ("s4 tune digits_c", "digits_css"), ("s4 tune --max-h", "--max-hours"), ("s4 space n", "new")],
)
def test_a_shell_completes_commands_options_and_presets_at_once(words: str, completed: str) -> None:
    typed = {"_S4_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    out, imported = slow_imports(**typed)
    assert completed in out.split()
    assert imported == ""


@pytest.mark.parametrize("command", ["report", "confirm", "evaluate"])
def test_a_shell_completes_the_runs_of_its_folder(command: str, tmp_path: Path) -> None:
    made_training(tmp_path / "runs" / "slower")
    typed = {"_S4_COMPLETE": "complete_bash", "COMP_WORDS": f"s4 {command} slo", "COMP_CWORD": "2"}
    out, imported = slow_imports(folder=tmp_path, **typed)
    assert (out.split(), imported) == (["slower"], "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_shown_for_every_shell(shell: str) -> None:
    out, _ = slow_imports("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert f"_S4_COMPLETE=complete_{shell}" in out


def test_the_usage_of_a_command_has_no_markup_and_no_box(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tune", "--bogus"]) == 2
    err = capsys.readouterr().err
    assert "No such option: --bogus" in err
    assert not re.search(r"[│╭╰]", err)


def test_every_option_of_a_search_is_on_the_page_or_of_python_alone() -> None:
    assert {*SearchConfig.model_fields} == {name for names in PANELS.values() for name in names} | {*HIDDEN}
