"""Reads the books of a search after the fact, as a stranger would: what was lost, repeated, left open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from harness.ledger import LEDGER, read_ledger
from harness.tuning.study import open_study


@dataclass(frozen=True)
class Books:
    """What three books say of the trials of one search, by number."""

    ledger: list[str]
    optuna: list[str]
    """Empty where the study is a shared one."""
    mlflow: list[str]
    """Status of the children's runs; empty where nothing was recorded."""
    mlflow_parents: list[str]
    steps: dict[str, list[int]]
    """Optimizer steps that were really trained, by the name of the trial, in order."""

    def repeated(self, name: str) -> int:
        """Return how many steps of a trial were trained more than once."""
        steps = self.steps[name]
        return len(steps) - len(set(steps))


def read_books(folder: Path, marks: Path, tracking_uri: str | None = None) -> Books:
    """Read everything.

    Args:
        folder: of the search.
        marks: where the stand-in for training left its notes.
    """
    history = read_ledger(folder / LEDGER)
    study = open_study(folder, folder.name)
    children, parents = _runs(tracking_uri, folder.name) if tracking_uri else ([], [])
    return Books(
        ledger=[str(trial.state) for _, trial in sorted(history.trials.items())],
        optuna=[trial.state.name for trial in study.trials] if study is not None else [],
        mlflow=children,
        mlflow_parents=parents,
        steps={path.stem: [int(line) for line in path.read_text().split()] for path in marks.glob("*.steps")},
    )


def _runs(tracking_uri: str, name: str) -> tuple[list[str], list[str]]:
    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name("s4")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.`s4.search` = '{name}'", max_results=1000)
    children = [run for run in runs if run.data.tags.get("s4.kind") == "trial"]
    children.sort(key=lambda run: int(run.data.tags["s4.trial"]))
    parents = [run.info.status for run in runs if run.data.tags.get("s4.kind") == "search"]
    return [run.info.status for run in children], parents
