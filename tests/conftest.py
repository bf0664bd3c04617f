"""What holds for all tests, and an empty MLflow store for those that record."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# No test fails for being slow: the machine may do other things beside it.
settings.register_profile("s4", deadline=None)
settings.load_profile("s4")


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep decoded images, of processes that tests start too, where the session's other files are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("S4_CACHE_DIR", str(tmp_path_factory.mktemp("decoded")))
        yield


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Return a function that puts an empty store into a folder as `mlflow.db`, and returns its URI.

    MLflow takes a second to make a store's tables, so they are made once and copied.
    """
    from harness.tracking.stores import connect_client

    empty = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect_client(f"sqlite:///{empty}").search_experiments()

    def copy(folder: Path) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(empty, folder / empty.name)
        return f"sqlite:///{folder / empty.name}"

    return copy
