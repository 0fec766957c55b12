"""Check that the header of a safetensors file is read within limits, and that what is no file is never read."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from safety_harness.errors import HarnessError, SourceError
from safety_harness.patch.tensor_bytes import stored_tensors
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from tests.fuzz.readers import SUBJECTS, tensors

SUBJECT = SUBJECTS["tensors"]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """The one shard of a sound model, next to its config and index."""
    SUBJECT.beside(tmp_path)
    return tmp_path / SUBJECT.file


def header(text: str, numbers: int = 0) -> bytes:
    """Return a safetensors file with this header and as many bytes of numbers."""
    return struct.pack("<Q", len(text)) + text.encode() + bytes(numbers)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        struct.pack("<Q", (1 << 64) - 1) + b"{}",
        struct.pack("<Q", 1 << 40) + b"{}" * 99,
        struct.pack("<Q", 33 << 20) + b" " * (33 << 20),
        header("[" * 100_000),
        header("{}  x"),
        header(json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}})),
        header(json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}), 4),
        header(json.dumps({"a": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 4]}}), 4),
        header(json.dumps({"a": {"dtype": "F32", "shape": [1e3], "data_offsets": [0, 4]}}), 4),
        header(json.dumps({"a": {"dtype": "F32", "shape": [1]}}), 4),
        tensors(**{"x" * 100_000: (1,)}),
        tensors(**{"a\nb": (1,)}),
    ],
)
def test_a_header_that_cannot_be_is_one_line(shard: Path, content: bytes) -> None:
    shard.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        stored_tensors(Checkpoint(shard.parent))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "one.safetensors"])
def test_a_pipe_or_device_in_a_model_is_refused(shard: Path, name: str) -> None:
    file = shard.with_name(name)
    for make in (os.mkfifo, lambda file: file.symlink_to("/dev/zero")):
        file.unlink()
        make(file)
        with pytest.raises(SourceError, match=f"{name}: cannot be read .it is a pipe or a device"):
            Checkpoint(shard.parent)


@pytest.mark.parametrize("name", ["x" * 300, "é" * 200, "a\0b", "../one.safetensors", "y/" * 3_000])
def test_an_index_names_files_that_can_be(shard: Path, name: str) -> None:
    index = shard.with_name("model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(SourceError, match=r"index\.json: (no file can have the name|names a file in another place)"):
        Checkpoint(shard.parent)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "y/" * 3_000])
def test_a_folder_that_cannot_be_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError):
        Checkpoint(tmp_path / name)


def test_a_model_of_many_layers_is_counted_at_once() -> None:
    """Count 20,000 layers with the names in an order that is not theirs."""
    shapes = {f"model.layers.{layer}.mlp.down_proj.weight": (4, 6) for layer in reversed(range(20_000))}
    assert len(enumerate_units({"model_type": "llama"}, shapes, ["down"])) == 20_000
    with pytest.raises(HarnessError):
        enumerate_units({"model_type": "llama"}, {"model.layers.1.mlp.down_proj.weight": (4, 6)}, ["down"])
