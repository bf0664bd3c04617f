from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.connection import ray_session


@pytest.fixture(scope="session", autouse=True)
def stores_are_copied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let MLflow make the tables of a SQLite store once: it takes seconds, and makes the same in every new file."""
    from mlflow.store.db import utils

    made, make = tmp_path_factory.mktemp("store") / "mlflow.db", utils._initialize_tables

    def copy(engine: Any) -> None:
        if made.exists():
            engine.dispose()
            shutil.copy(made, engine.url.database)
            return
        make(engine)
        shutil.copy(engine.url.database, made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_initialize_tables", copy)
        yield


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """One Ray for all tests; its workers find the modules beside this file."""
    before = os.environ.get("PYTHONPATH")
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in (here, before) if path)
    try:
        with ray_session("local", cpus=4):
            yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
