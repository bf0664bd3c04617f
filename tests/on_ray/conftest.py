from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.connection import ray_session


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
