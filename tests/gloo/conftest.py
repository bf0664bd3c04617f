import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # for `reference`, which is no package of the product
pytest.register_assert_rewrite("run_conformance")

from ranks import Processes, Ranks  # noqa: E402 - after the path that it needs


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """The same processes for all tests and all sizes of a group."""
    started = Processes(tmp_path_factory.mktemp("ranks"))
    yield started
    started.close()


@pytest.fixture(scope="session")
def two_ranks(processes: Processes) -> Ranks:
    """A group of two."""
    return Ranks(2, processes)


@pytest.fixture(scope="session")
def four_ranks(processes: Processes) -> Ranks:
    """A group of four."""
    return Ranks(4, processes)
