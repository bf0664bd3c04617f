"""Files that are made to do harm, or are broken in any way: one line that names them, and nothing in them is run."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from trainers.checkpoint import load_checkpoint
from trainers.config import ModelConfig
from trainers.data.files import image_size, open_image
from trainers.errors import DataError
from trainers.image_evaluation import load_image_evaluation
from trainers.models.served import read_segmenter
from trainers.models.weights import read_weights


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def of_torch(payload: Payload, zipped: bool) -> bytes:
    content = io.BytesIO()
    torch.save({"model": torch.zeros(1), "state": payload}, content, _use_new_zipfile_serialization=zipped)
    return content.getvalue()


def of_numpy(payload: Payload) -> bytes:
    content = io.BytesIO()
    objects = np.array([payload], dtype=object)
    np.savez(content, allow_pickle=True, names=objects, classes=objects, confusion=objects)
    return content.getvalue()


FORMS: dict[str, Callable[[Payload], bytes]] = {
    "pickle": pickle.dumps,
    "torch": lambda payload: of_torch(payload, zipped=True),
    "old torch": lambda payload: of_torch(payload, zipped=False),
    "numpy": of_numpy,
}
READERS: dict[str, Callable[[Path], object]] = {
    "checkpoint": load_checkpoint,
    "registered model": read_segmenter,
    "encoder weights": lambda path: read_weights(ModelConfig(arch="deeplabv3plus", backbone_weights=path)),
    "evaluation": load_image_evaluation,
}


def refused(read: Callable[[Path], object], path: Path) -> None:
    with pytest.raises(DataError) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reader", READERS)
def test_a_payload_is_refused_and_does_not_run(reader: str, form: str, tmp_path: Path) -> None:
    path, harm = tmp_path / "file.pt", tmp_path / "harm"
    path.write_bytes(FORMS[form](Payload(harm)))
    refused(READERS[reader], path)
    assert not harm.exists()


@pytest.mark.parametrize("reader", ["checkpoint", "registered model", "encoder weights"])
def test_a_file_with_wrong_bytes_is_read_or_refused(reader: str, tmp_path: Path) -> None:
    path, draw = tmp_path / "file.pt", random.Random(0)
    content = io.BytesIO()
    state = {"model": {"weight": torch.zeros(4)}, "step": 3}
    torch.save(state, content, _use_new_zipfile_serialization=False)  # without sums over its bytes
    whole = content.getvalue()
    for _ in range(200):
        broken = bytearray(whole)
        for _ in range(draw.choice([1, 5, 30])):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        path.write_bytes(broken[: draw.choice([len(broken), draw.randrange(len(broken))])])
        with suppress(DataError):
            READERS[reader](path)


def png(width: int, height: int) -> bytes:
    """The head of an image of this size, and hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("read", [open_image, image_size])
def test_an_image_that_is_a_decompression_bomb_is_refused(read: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(100_000, 100_000))
    refused(read, path)
