import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # for `reference`, which is no package of the product
pytest.register_assert_rewrite("run_conformance")

from ranks import Ranks  # noqa: E402 - after the path that it needs


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """One pair of processes for all tests: starting them takes longer than most tests do."""
    ranks = Ranks(2, tmp_path_factory.mktemp("ranks"))
    yield ranks
    ranks.close()
