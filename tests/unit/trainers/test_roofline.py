"""The least time of work by a device's ceilings, against closed forms."""

from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FLOPS, BYTES_PER_S = {"bfloat16": 4e9, "float32": 1e9}, 1e9


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def counted(work: Any) -> Any:
    from roofline import Roofline

    with Roofline(FLOPS, BYTES_PER_S) as roofline:
        work()
    return roofline


def test_a_product_is_bound_by_its_operations_where_they_take_longer_than_its_bytes() -> None:
    one = torch.ones(100, 100)
    found = counted(lambda: one @ one)
    assert (found.flops, found.bytes, found.operators) == (2 * 100**3, 3 * 4 * 100**2, 1)
    assert found.seconds == pytest.approx(2 * 100**3 / FLOPS["float32"])


def test_a_product_of_bfloat16_is_bound_by_the_ceiling_of_its_own() -> None:
    one = torch.ones(100, 100, dtype=torch.bfloat16)
    assert counted(lambda: one @ one).seconds == pytest.approx(2 * 100**3 / FLOPS["bfloat16"])


def test_an_operator_without_products_is_bound_by_its_bytes() -> None:
    one = torch.ones(1000)
    assert counted(lambda: one + one).seconds == pytest.approx(3 * 4000 / BYTES_PER_S)


def test_an_operator_in_place_reads_and_writes() -> None:
    one = torch.ones(1000)
    assert counted(lambda: one.mul_(2.0)).bytes == 2 * 4000


def test_an_operator_in_place_on_lists_reads_all_and_writes_the_first() -> None:
    ones, others = [torch.ones(1000), torch.ones(500)], [torch.ones(1000), torch.ones(500)]
    assert counted(lambda: torch._foreach_lerp_(ones, others, 0.5)).bytes == 3 * 6000


def test_views_and_memory_that_is_handed_out_move_nothing() -> None:
    one = torch.ones(10, 100)
    found = counted(lambda: (one.view(100, 10).T, one.split(5), torch.empty(1000), one.expand(3, 10, 100)))
    assert (found.bytes, found.operators) == (0, 0)


def test_what_is_expanded_is_read_once() -> None:
    one = torch.ones(1).expand(1000)
    assert counted(lambda: one + 1).bytes == 4 + 4000
