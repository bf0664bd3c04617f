"""Checkpoints: whole or not at all."""

from pathlib import Path
from typing import Any

import pytest
import torch
from reference.tiny import differences

from trainers.checkpoint import load_checkpoint, save_checkpoint
from trainers.errors import DataError

STATE = {"step": 3, "weights": {"a": torch.arange(5.0), "b": torch.tensor([True, False])}, "rates": [0.1, None]}


def test_what_is_saved_is_loaded_bit_by_bit(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "new" / "latest.pt", STATE)
    assert differences(load_checkpoint(tmp_path / "new" / "latest.pt"), STATE) == []


def test_saving_leaves_one_file(tmp_path: Path) -> None:
    for _ in range(2):
        save_checkpoint(tmp_path / "latest.pt", STATE)
    assert [path.name for path in tmp_path.iterdir()] == ["latest.pt"]


def test_a_write_that_fails_midway_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path / "latest.pt", STATE)

    def out_of_space(state: Any, file: Any) -> None:
        file.write(b"the first bytes")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", out_of_space)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path / "latest.pt", {"step": 4})
    assert [path.name for path in tmp_path.iterdir()] == ["latest.pt"]
    assert load_checkpoint(tmp_path / "latest.pt")["step"] == 3


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a checkpoint must exist, got .*nowhere\.pt"):
        load_checkpoint(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("kept", [0, 10, 500])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "latest.pt"
    save_checkpoint(path, STATE)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match="a checkpoint must be readable"):
        load_checkpoint(path)


class Intruder:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"step": Intruder(tmp_path / "ran")}, tmp_path / "latest.pt")
    with pytest.raises(DataError, match="a checkpoint must be readable"):
        load_checkpoint(tmp_path / "latest.pt")
    assert not (tmp_path / "ran").exists()


def test_a_file_that_holds_no_dictionary_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "latest.pt")
    with pytest.raises(DataError, match="a checkpoint must hold a dictionary, got list"):
        load_checkpoint(tmp_path / "latest.pt")
