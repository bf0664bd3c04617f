"""Imports point one way: search_spaces and trainers know nothing of the harness, and nothing of each other."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"harness", "trainers", "search_spaces"}


ROOMS = (
    "formats", "tables", "statistics", "trials", "run_folder", "one_driver", "start", "ledger", "console", "signals",
    "connection", "cluster", "gangs", "tracking", "tuning", "models", "config_file", "folder_config", "experiment",
    "space_file", "ablation", "planning", "scaling", "reporting", "showing", "session", "doctor", "api", "__init__",
    "cli",
)  # fmt: skip
"""Files and folders of the harness from the ground up: each imports only what stands before it."""


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(file: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, at its top, inside of functions or for types alone."""
    package = file.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            parent = ".".join((*base, *([node.module] if node.module else [])))
            yield from (f"{parent}.{alias.name}" for alias in node.names)


def offences(folder: str, forbidden: set[str]) -> list[str]:
    return [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in python_files(folder)
        for name in imports(file)
        if name.split(".")[0] in forbidden
    ]


@pytest.mark.parametrize("folder", sorted(OURS))
def test_there_is_something_to_look_at(folder: str) -> None:
    assert python_files(folder)


def test_trainers_know_nothing_of_clusters_tracking_search_or_harness() -> None:
    assert offences("trainers", {"ray", "mlflow", "optuna", "harness", "search_spaces", "tests"}) == []


def test_search_spaces_know_nothing_of_ours_and_no_cluster() -> None:
    assert offences("search_spaces", {"ray", "mlflow", "torch", "harness", "trainers", "tests"}) == []


def test_search_spaces_take_at_most_distributions_from_optuna() -> None:
    names = [name for file in python_files("search_spaces") for name in imports(file) if name.startswith("optuna")]
    assert [name for name in names if not name.startswith("optuna.distributions")] == []


def test_rooms_of_the_harness_import_only_what_stands_below_them() -> None:
    upwards = []
    for file in python_files("harness"):
        room = file.relative_to(ROOT / "harness").parts[0].removesuffix(".py")
        for name in imports(file):
            other = name.split(".")[1] if name.startswith("harness.") else room
            if other not in ROOMS or ROOMS.index(other) > ROOMS.index(room):
                upwards.append(f"{file.relative_to(ROOT)} imports {name}")
    assert upwards == []


def test_files_of_the_harness_import_each_other_in_no_circle() -> None:
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in python_files("harness")}
    graph = {
        module: {known for name in imports(file) for known in (name, name.rpartition(".")[0]) if known in modules}
        for module, file in modules.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)  # a CycleError names the circle


def test_the_harness_imports_no_tests() -> None:
    assert offences("harness", {"tests"}) == []


def test_nothing_is_imported_by_a_name_in_a_string() -> None:
    calls = [
        str(file.relative_to(ROOT))
        for folder in sorted(OURS)
        for file in python_files(folder)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Name) and node.id == "__import__")
        or (isinstance(node, ast.Attribute) and node.attr == "import_module")
    ]
    assert calls == []


def test_the_cluster_folder_holds_no_python() -> None:
    assert python_files("cluster") == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("import ray", "ray"),
        ("def f():\n    from ray.tune import Tuner", "ray.tune.Tuner"),
        ("from ..harness import cli", "harness.cli"),
        ("if TYPE_CHECKING:\n    import optuna.trial as t", "optuna.trial"),
    ],
)
def test_every_form_of_import_is_seen(line: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    file = tmp_path / "trainers" / "module.py"
    file.parent.mkdir()
    file.write_text(line)
    assert list(imports(file)) == [name]
