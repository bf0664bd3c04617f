"""Decoded images are kept within a limit, and the limit changes no image."""

import gc
import threading
from pathlib import Path

import pytest
import torch
from official_trees import ade20k_tree
from torch import Tensor

from trainers.config import Ade20kData
from trainers.data import files
from trainers.data.ade20k import Ade20kReader
from trainers.data.cache import ImageCache, cache_limit
from trainers.data.files import Coding, FileSource, Pair, decode
from trainers.data.threads import THREADS_VARIABLE, in_threads
from trainers.errors import ConfigError


def image(side: int, value: int = 0) -> tuple[Tensor, Tensor]:
    """An image of 4 side^2 bytes."""
    return torch.full((3, side, side), value, dtype=torch.uint8), torch.zeros(side, side, dtype=torch.uint8)


def test_the_least_recently_used_image_is_dropped() -> None:
    cache = ImageCache(limit=2 * 400)
    cache.put(0, 0, image(10))
    cache.put(0, 1, image(10))
    cache.get(0, 0)
    cache.put(0, 2, image(10))
    assert [cache.get(0, index) is not None for index in range(3)] == [True, False, True]


def test_no_more_than_the_limit_is_kept() -> None:
    cache = ImageCache(limit=1000)
    for index in range(20):
        cache.put(0, index, image(5 + index % 7))
        assert cache.used <= 1000
    assert cache.used > 500


def test_an_image_larger_than_the_limit_drops_nothing() -> None:
    cache = ImageCache(limit=500)
    cache.put(0, 0, image(10))
    cache.put(0, 1, image(20))
    assert (cache.get(0, 0) is not None, cache.get(0, 1)) == (True, None)


def test_what_is_reserved_is_not_used_for_others_until_it_is_released() -> None:
    cache = ImageCache(limit=1000)
    assert cache.reserve(700)
    cache.put(1, 0, image(10))
    assert cache.get(1, 0) is None
    assert not cache.reserve(400)
    cache.release(0, 700)
    cache.put(1, 0, image(10))
    assert cache.used == 400


def test_a_source_that_is_gone_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = ImageCache(limit=10**6)
    source = ade20k(tmp_path, cache)
    source.fetch(range(8))
    assert cache.used > 0
    del source
    gc.collect()
    assert cache.used == 0


def ade20k(root: Path, cache: ImageCache, shape: tuple[int, int] | None = None) -> FileSource:
    if not root.joinpath("images").exists():
        ade20k_tree(root)
    reader = Ade20kReader(Ade20kData(root=root))
    return FileSource(reader.coding._replace(shape=shape), reader.training().pairs, cache)


@pytest.mark.parametrize("shape", [None, (16, 20)], ids=["own sizes", "one size"])
@pytest.mark.parametrize("limit", [0, 5000, 10**9])
def test_the_limit_changes_no_image(tmp_path: Path, shape: tuple[int, int] | None, limit: int) -> None:
    expected = ade20k(tmp_path, ImageCache(10**9), shape).fetch([5, 0, 0, 3])
    source = ade20k(tmp_path, ImageCache(limit), shape)
    for _ in range(2):
        assert all(torch.equal(*pair) for pair in zip(source.fetch([5, 0, 0, 3]), expected, strict=True))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are decoded."""
    names: list[str] = []

    def counting(coding: Coding, pair: Pair) -> tuple[Tensor, Tensor]:
        names.append(pair.name)
        return decode(coding, pair)

    monkeypatch.setattr(files, "decode", counting)
    return names


@pytest.mark.parametrize("shape", [None, (16, 20)], ids=["own sizes", "one size"])
def test_each_image_is_decoded_once_where_there_is_room(
    tmp_path: Path, decoded: list[str], shape: tuple[int, int] | None
) -> None:
    source = ade20k(tmp_path, ImageCache(10**9), shape)
    for indices in ([0, 1, 1], [1, 2], [2, 0]):
        source.fetch(indices)
    assert sorted(decoded) == sorted(source.names[index] for index in (0, 1, 2))


def test_without_room_an_image_is_decoded_at_each_fetch_but_once_in_it(tmp_path: Path, decoded: list[str]) -> None:
    source = ade20k(tmp_path, ImageCache(0))
    source.fetch([0, 0, 0])
    source.fetch([0])
    assert decoded == [source.names[0]] * 2


def test_threads_may_fetch_at_once(tmp_path: Path) -> None:
    expected = ade20k(tmp_path, ImageCache(10**9)).fetch(range(8))
    source = ade20k(tmp_path, ImageCache(6000))  # less than the images take, so that they displace each other
    wrong: list[int] = []

    def fetch(first: int) -> None:
        for turn in range(10):
            order = [(first + turn + at) % 8 for at in range(8)]
            images, labels, sizes = source.fetch(order)
            same = torch.equal(images, expected.images[order]) and torch.equal(labels, expected.labels[order])
            if not (same and torch.equal(sizes, expected.sizes[order])):
                wrong.append(first)

    threads = [threading.Thread(target=fetch, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_limit_is_set_in_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S4_CACHE_GIB", "1.5")
    assert cache_limit() == 3 * 2**29


def test_ranks_of_a_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("S4_CACHE_GIB", raising=False)
    monkeypatch.setattr("trainers.data.cache._free_memory", lambda: 64 * 2**30)
    alone = cache_limit()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert (alone, cache_limit()) == (16 * 2**30, 2 * 2**30)


@pytest.mark.parametrize("given", ["much", "-1", "nan", "inf", ""])
def test_a_limit_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("S4_CACHE_GIB", given)
    with pytest.raises(ConfigError, match=rf"S4_CACHE_GIB must be GiB of at least 0, got '{given}': set it"):
        cache_limit()


def test_as_many_threads_decode_at_once_as_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, "3")
    together = threading.Barrier(3)
    in_threads(lambda _: together.wait(30), range(6))
    names: set[str] = set()
    in_threads(lambda _: names.add(threading.current_thread().name), range(50))
    assert len(names) <= 3


@pytest.mark.parametrize("given", ["0", "many", "-1", ""])
def test_a_number_of_threads_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, given)
    with pytest.raises(ConfigError, match=rf"{THREADS_VARIABLE} must be a whole number from 1 on, got '{given}'"):
        in_threads(print, [0])
