"""Decoded images are kept for all processes of a node within a limit, and what is kept changes no image."""

import errno
import gc
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from official_trees import ade20k_tree, write_image
from torch import Tensor

from trainers.config import Ade20kData
from trainers.data import cache as module
from trainers.data import files
from trainers.data.ade20k import Ade20kReader
from trainers.data.cache import OLD_S, NodeCache, given_limit, node_cache
from trainers.data.files import Coding, FileSource, Pair, byte_mask, decode
from trainers.data.masks import ColourMasks, IndexMasks
from trainers.data.threads import THREADS_VARIABLE, in_threads
from trainers.errors import ConfigError

GIB = 2**30
WHOLE = 100_000
"""More bytes than an image has."""


def image(side: int, value: int = 0) -> tuple[Tensor, Tensor]:
    """An image of 4 side^2 bytes."""
    return torch.full((3, side, side), value, dtype=torch.uint8), torch.zeros(side, side, dtype=torch.uint8)


def opened(folder: Path, limit: int = GIB, identity: str = "a") -> NodeCache:
    folder.mkdir(exist_ok=True)
    return NodeCache(folder, identity, limit)


def ade20k(root: Path, cache: NodeCache | None = None, shape: tuple[int, int] | None = None) -> FileSource:
    if not root.joinpath("images").exists():
        ade20k_tree(root)
    reader = Ade20kReader(Ade20kData(root=root))
    return FileSource(reader.coding._replace(shape=shape), reader.training().pairs, cache)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are decoded."""
    names: list[str] = []

    def counting(coding: Coding, pair: Pair) -> tuple[Tensor, Tensor]:
        names.append(pair.name)
        return decode(coding, pair)

    monkeypatch.setattr(files, "decode", counting)
    return names


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that processes of this test keep images in."""
    monkeypatch.setenv("S4_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("S4_CACHE_GIB", "1")
    for cached in (node_cache, module._say):
        cached.cache_clear()
    yield tmp_path / "cache" / f"s4-cache-{os.getuid()}"
    node_cache.cache_clear()


FETCH = """
import json, hashlib, os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_data_cache import ade20k
from trainers.data import files
decode, count = files.decode, []
files.decode = lambda coding, pair: count.append(pair.name) or decode(coding, pair)
{before}
input()
images, labels, sizes = ade20k(Path({root!r})).fetch(range(8))
digest = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
print(json.dumps([digest, len(count)]))
"""


def processes(root: Path, number: int, before: str = "") -> list[tuple[int, str]]:
    """Let as many processes fetch all images at once; return their exit codes and what they print."""
    code = FETCH.format(tests=str(Path(__file__).parent), root=str(root), before=before)
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(number)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
    return [(process.wait(), output) for process in started for output in [process.communicate()[0]]]


def test_processes_that_write_at_once_read_the_same_and_a_later_one_decodes_nothing(
    own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ade20k(tmp_path)
    digests = {json.loads(output)[0] for code, output in processes(tmp_path, 2) if code == 0}
    [(_, late)] = processes(tmp_path, 1)
    monkeypatch.setenv("S4_CACHE_GIB", "0")
    [(_, without)] = processes(tmp_path, 1)
    assert [json.loads(late)[1], json.loads(without)[1]] == [0, 8]
    assert digests == {json.loads(late)[0]} == {json.loads(without)[0]}


KILL = """
from trainers.data import cache
append, writes = cache._append, []
def killed(path, end, *parts):
    writes.append(path)
    if len(writes) == {write}:
        append(path, end, b"".join(bytes(part) for part in parts)[:{left}])
        os.kill(os.getpid(), 9)
    append(path, end, *parts)
cache._append = killed
os.environ["S4_DECODING_THREADS"] = "1"
"""


@pytest.mark.parametrize("left", [10, WHOLE], ids=["a part", "all"])
@pytest.mark.parametrize(
    "write",
    [
        pytest.param(1, id="pixels", marks=pytest.mark.long),
        pytest.param(3, id="later pixels"),
        pytest.param(2, id="entry", marks=pytest.mark.long),
        pytest.param(4, id="later entry"),
    ],
)
def test_what_a_killed_writer_left_is_not_read(write: int, left: int, own_folder: Path, tmp_path: Path) -> None:
    whole = ade20k(tmp_path, opened(tmp_path / "other")).fetch(range(8))
    [(code, _)] = processes(tmp_path, 1, KILL.format(write=write, left=left))
    (folder,) = own_folder.iterdir()
    names = 0 if not (index := folder / "index").exists() else index.stat().st_size // module._ENTRY.size
    assert (code, names) == (-9, (write - (left < WHOLE)) // 2)
    for _ in range(2):
        assert torch.equal(ade20k(tmp_path).fetch(range(8)).images, whole.images)
        node_cache.cache_clear()
    (entries,) = [file.stat().st_size / module._ENTRY.size for file in own_folder.glob("*/index")]
    assert entries == 8


def test_what_a_write_that_failed_in_its_midst_left_is_written_over(own_folder: Path, tmp_path: Path) -> None:
    whole = ade20k(tmp_path, opened(tmp_path / "other")).fetch(range(8))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))"
    [(code, _)] = processes(tmp_path, 1, limit)
    sizes = {file.name: file.stat().st_size for file in own_folder.glob("*/*")}
    assert code == 0
    assert 0 < sizes["pixels"] < 9000
    for _ in range(2):
        assert torch.equal(ade20k(tmp_path).fetch(range(8)).images, whole.images)
        node_cache.cache_clear()
    assert json.loads(processes(tmp_path, 1)[0][1])[1] == 0


def test_on_a_full_disk_training_goes_on_and_it_is_said_once(
    tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = ade20k(tmp_path, cache := opened(tmp_path / "cache"))
    before = source.fetch([0])
    monkeypatch.setattr(module, "_append", full)
    for _ in range(2):
        source.fetch(range(8))
    assert torch.equal(source.fetch([0]).images, before.images)
    assert cache.get("nothing") is None
    assert decoded.count(source.names[0]) == 1
    assert decoded.count(source.names[1]) == 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "No space left on device" in caplog.text


def test_what_another_process_has_decoded_meanwhile_is_not_decoded_again(
    tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, "1")
    here, there = (ade20k(tmp_path, opened(tmp_path / "cache")) for _ in range(2))
    counting, first = files.decode, []

    def overtaken(coding: Coding, pair: Pair) -> tuple[Tensor, Tensor]:
        if not first:
            first.append(pair.name)
            there.fetch(range(8))
        return counting(coding, pair)

    monkeypatch.setattr(files, "decode", overtaken)
    here.fetch(range(8))
    assert sorted(decoded) == sorted([*here.names[:8], *first])


def test_a_file_that_changed_is_decoded_anew(tmp_path: Path, decoded: list[str]) -> None:
    cache = opened(tmp_path / "cache")
    source = ade20k(tmp_path, cache)
    before, changed = source.fetch([0, 1]), source._pairs[1].image
    write_image(changed, (before.sizes[1, 0], before.sizes[1, 1]), seed=99)
    after = ade20k(tmp_path, cache).fetch([0, 1])
    assert torch.equal(before.images[0], after.images[0])
    assert not torch.equal(before.images[1], after.images[1])
    assert sorted(decoded) == sorted([*source.names[:2], source.names[1]])


@pytest.mark.parametrize(
    "other",
    [
        {"shape": (16, 20)},
        {"fit": "pad"},
        {"oriented": True},
        {"read": IndexMasks()},
        {"read": lambda path: byte_mask(path)},
        {"labels": torch.arange(255, -1, -1, dtype=torch.uint8).numpy()},
        {"allowed": torch.zeros(256, dtype=torch.bool).numpy()},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_coding_has_another_identity(other: dict[str, object]) -> None:
    coding = Coding(byte_mask, torch.arange(256).to(torch.uint8).numpy(), torch.ones(256).bool().numpy(), "")
    assert coding._replace(rule="in other words").identity == coding.identity
    assert coding._replace(**other).identity != coding.identity  # type: ignore[arg-type]


def test_readers_of_masks_are_the_same_in_all_processes_where_they_read_the_same() -> None:
    assert repr(IndexMasks()) == repr(IndexMasks())
    assert repr(ColourMasks({(1, 2, 3): 4})) == repr(ColourMasks({(1, 2, 3): 4})) != repr(ColourMasks({(1, 2, 3): 5}))


@pytest.mark.parametrize("wrong", ["open to others", "a link", "a file", "in a file"])
def test_a_folder_that_another_user_may_have_made_is_not_used(
    wrong: str, own_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if wrong == "in a file":
        own_folder.parent.touch()
    else:
        own_folder.parent.mkdir()
    if wrong == "open to others":
        own_folder.mkdir(mode=0o755)
    if wrong == "a file":
        own_folder.touch()
    if wrong == "a link":
        tmp_path.joinpath("theirs").mkdir(mode=0o700)
        own_folder.symlink_to(tmp_path / "theirs")
    for _ in range(2):
        assert node_cache("a") is None
    assert len(caplog.records) == 1
    assert "set S4_CACHE_DIR to another folder" in caplog.text
    assert not tmp_path.joinpath("theirs").exists() or not [*tmp_path.joinpath("theirs").iterdir()]


def test_only_this_user_can_read_what_is_kept(own_folder: Path, tmp_path: Path) -> None:
    ade20k(tmp_path).fetch([0])
    assert own_folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("shape", [None, (16, 20)], ids=["own sizes", "one size"])
@pytest.mark.parametrize("limit", [0, 5000, 10**9])
def test_the_limit_changes_no_image(tmp_path: Path, shape: tuple[int, int] | None, limit: int) -> None:
    expected = ade20k(tmp_path, opened(tmp_path / "a"), shape).fetch([5, 0, 0, 3])
    source = ade20k(tmp_path, opened(tmp_path / "b", limit), shape)
    for _ in range(2):
        assert all(torch.equal(*pair) for pair in zip(source.fetch([5, 0, 0, 3]), expected, strict=True))


def test_all_caches_together_keep_no_more_than_the_limit(tmp_path: Path) -> None:
    caches = [opened(tmp_path, 10_000, identity) for identity in "ab"]
    for index in range(40):
        caches[index % 2].put(f"{index}", image(5 + index % 7))
    kept = sum(path.stat().st_size for path in tmp_path.glob("*/*"))
    assert 9_000 < kept <= 10_000


def test_what_several_decode_at_once_counts_once(tmp_path: Path) -> None:
    caches = [opened(tmp_path, 4 * (400 + module._ENTRY.size)) for _ in range(4)]
    for index in range(4):
        for cache in caches:
            cache.put(f"{index}", image(10))
    assert all(caches[0].get(f"{index}") is not None for index in range(4))


@pytest.mark.parametrize("shape", [None, (16, 20)], ids=["own sizes", "one size"])
def test_each_image_is_decoded_once_where_there_is_room(
    tmp_path: Path, decoded: list[str], shape: tuple[int, int] | None
) -> None:
    source = ade20k(tmp_path, opened(tmp_path / "cache"), shape)
    for indices in ([0, 1, 1], [1, 2], [2, 0]):
        source.fetch(indices)
    assert sorted(decoded) == sorted(source.names[index] for index in (0, 1, 2))


def test_without_room_an_image_is_decoded_at_each_fetch_but_once_in_it(tmp_path: Path, decoded: list[str]) -> None:
    source = ade20k(tmp_path, opened(tmp_path / "cache", 0))
    source.fetch([0, 0, 0])
    source.fetch([0])
    assert decoded == [source.names[0]] * 2


def test_threads_may_fetch_at_once(tmp_path: Path) -> None:
    expected = ade20k(tmp_path, opened(tmp_path / "a")).fetch(range(8))
    source = ade20k(tmp_path, opened(tmp_path / "b", 6000))  # less than the images take
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


def test_what_a_batch_was_made_of_is_not_changed_with_it(tmp_path: Path) -> None:
    source = ade20k(tmp_path, opened(tmp_path / "cache"), (16, 20))
    before = source.fetch([0, 1]).images.clone()
    source.fetch([0, 1]).images.zero_()
    assert torch.equal(source.fetch([0, 1]).images, before)


def test_what_is_old_is_removed_when_a_cache_is_opened_unless_somebody_has_it_open(tmp_path: Path) -> None:
    held, left = opened(tmp_path, identity="held"), opened(tmp_path, identity="left")
    for kept in (held, left):
        kept.put("image", image(4))
    del kept, left
    gc.collect()
    opened(tmp_path, identity="new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held", "left", "new"]
    for folder in tmp_path.iterdir():
        os.utime(folder, (0, time.time() - OLD_S - 60))
    opened(tmp_path, identity="newer")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held", "newer"]
    assert held.get("image") is not None


def test_what_nobody_has_open_makes_room(tmp_path: Path) -> None:
    left = opened(tmp_path, 1000, "left")
    left.put("image", image(15))
    here = opened(tmp_path, 1000, "here")
    here.put("early", image(10))
    assert here.get("early") is None
    del left
    gc.collect()
    again = opened(tmp_path, 1000, "again")
    again.put("late", image(10))
    assert again.get("late") is not None
    assert not (tmp_path / "left").exists()


def test_the_limit_is_set_in_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S4_CACHE_GIB", "1.5")
    assert given_limit() == 3 * 2**29


def test_without_a_limit_half_of_the_memory_and_of_the_disk_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = module.shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(module, "_free_memory", lambda: 1000)
    assert module._share_of_free(tmp_path) == 500
    monkeypatch.setattr(module, "_free_memory", lambda: 2**60)
    assert module._share_of_free(tmp_path) == pytest.approx(free / 2, rel=0.1)


def test_a_limit_of_nothing_makes_no_folder(
    own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    monkeypatch.setenv("S4_CACHE_GIB", "0")
    source = ade20k(tmp_path)
    for _ in range(2):
        source.fetch([0])
    assert len(decoded) == 2
    assert not own_folder.parent.exists()


@pytest.mark.parametrize("given", ["much", "-1", "nan", "inf", ""])
def test_a_limit_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("S4_CACHE_GIB", given)
    with pytest.raises(ConfigError, match=rf"S4_CACHE_GIB must be GiB of at least 0, got '{given}': set it"):
        given_limit()


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
