"""A SQLite store a module, and an experiment of its own a test."""

from pathlib import Path

import pytest
from recorded import Store

from harness.tracking.stores import connect_client


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    connect_client(uri).search_experiments()  # creates the tables once, for that takes seconds
    return uri


@pytest.fixture
def store(uri: str, tmp_path: Path) -> Store:
    return Store(uri, tmp_path)
