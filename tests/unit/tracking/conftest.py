"""A SQLite store a module, and an experiment of its own a test."""

from collections.abc import Callable
from pathlib import Path

import pytest
from recorded import Store


@pytest.fixture(scope="module")
def uri(new_store: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory) -> str:
    return new_store(tmp_path_factory.mktemp("module"))


@pytest.fixture
def store(uri: str, tmp_path: Path) -> Store:
    return Store(uri, tmp_path)
