import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # for `reference`, which is no package of the product

from collections.abc import Callable, Iterator

import pytest
from trained_runs import TrainedRuns, train_some


@pytest.fixture(scope="session")
def trained(new_store: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory) -> TrainedRuns:
    """A training and a search of two trials, as commands leave them; made once, never changed."""
    root = tmp_path_factory.mktemp("trained")
    return train_some(root, new_store(root))


@pytest.fixture(autouse=True)
def _nothing_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No store of the developer's; and MLflow's own default, wherever a call falls back on it, is left alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    assert not (tmp_path / "mlflow.db").exists()
