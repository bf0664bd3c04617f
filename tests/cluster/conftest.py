from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # for `reference`, which is no package of the product

from hosts import Hosts, hosts, missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs hosts where there can be none."""
    here = Path(__file__).parent
    ours = [item for item in items if item.path.is_relative_to(here)]
    reason = missing() if ours else None
    if reason is None:
        return
    for item in ours:
        item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def folder(new_store: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Storage of a command, with the store that it is recorded in."""
    made = tmp_path_factory.mktemp("storage")
    new_store(made)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def two_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """A Ray cluster of two hosts with one CPU each."""
    with hosts(tmp_path_factory.mktemp("hosts"), [1, 1]) as made:
        made.start()
        yield made
