"""What a rank meets when another one dies in the middle of a collective."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import multiprocessing

from harness.gangs.worker import is_lost_peer


def rank_of_two(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    dist.all_reduce(torch.ones(8))
    if rank == 1:
        os._exit(0)
    try:
        for _ in range(1000):
            dist.all_reduce(torch.ones(100_000))
    except Exception as error:
        (folder / "met").write_text(f"{is_lost_peer(error)} {error}")
    os._exit(0)


def test_a_rank_that_dies_is_a_lost_peer_to_the_others(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=rank_of_two, args=(rank, tmp_path)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert (tmp_path / "met").read_text().startswith("True ")


def test_other_errors_are_no_lost_peers() -> None:
    assert not is_lost_peer(RuntimeError("shape mismatch"))
    assert not is_lost_peer(RuntimeError("gloo: enforce fail: sizes differ"))
    assert not is_lost_peer(ValueError("gloo: Connection reset by peer"))
