"""`s4 tune`: what of its options reaches a search."""

from pathlib import Path

import pytest

from harness.api import searches
from harness.cli.main import run


def test_a_method_is_searched_as_it_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def search(session: searches.Session, *_: object) -> None:
        begun.append(session.experiment)
        raise KeyboardInterrupt

    monkeypatch.setattr(searches, "_search", search)
    monkeypatch.chdir(tmp_path)
    space = tmp_path / "rate.yaml"
    space.write_text(
        "name: rate\nbaseline: {optimizer.lr: 0.01}\nparameters:\n  optimizer.lr: {float: {low: 0.001, high: 0.1}}\n"
    )
    run(["tune", "--method", "supervised", "--space", str(space)])
    assert [(one.base.loss.lambda_u, one.base.loss.lambda_c) for one in begun] == [(0.0, 0.0)]
