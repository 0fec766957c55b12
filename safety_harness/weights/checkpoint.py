"""Read a checkpoint folder lazily: names and shapes first, a tensor only when it is asked for."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from safety_harness.errors import LineageError, SourceError
from safety_harness.files import sha256_file, sha256_text
from safety_harness.reading import Reader
from safety_harness.weights.header import READER, require_header

if TYPE_CHECKING:
    import torch

    from safety_harness.weights.units import Shape, Unit

# Files next to the weights that decide answers too: configs, tokenizer, chat template, end-of-answer tokens.
BESIDE = ("*.json", "*.jinja", "*.model", "*.txt")
_FOLDER = Reader(SourceError, missing="no such model folder. Check the path in the registry.")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class Checkpoint:
    """The safetensors of one model folder. No tensor is in memory until :meth:`tensor` is called.

    Raises:
        SourceError: the folder or its config is missing, the weights are quantised or no safetensors (pickles are
            refused), or a shard is missing or truncated.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _FOLDER.require_folder(folder)
        self.config = _read_json(folder / "config.json")
        _refuse_quantised(folder, self.config)
        self.shards: Sequence[Path] = self._find_shards()
        """The safetensors files of the folder."""
        self._shard_of: dict[str, Path] = {}
        self.shapes: Mapping[str, Shape] = self._read_headers()
        """The name and shape of every tensor on disk."""

    @property
    def model_type(self) -> str:
        """The architecture, in the words of transformers, or an empty string."""
        return str(self.config.get("model_type", ""))

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 over weights, configs and tokenizer: everything that decides the answers of this model."""
        companions = sorted({path for pattern in BESIDE for path in self.folder.glob(pattern)})
        return sha256_text("\n".join(f"{path.name} {sha256_file(path)}" for path in [*self.shards, *companions]))

    @property
    def parameters(self) -> int:
        """How many numbers the checkpoint holds. Tied tensors count once."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype of one tensor on disk, without reading its numbers.

        Raises:
            SourceError: there is no tensor of this name.
        """
        with self._opened(name) as tensors:
            empty: torch.Tensor = tensors.get_slice(name)[:0] if self.shapes[name] else tensors.get_tensor(name)
        return empty.dtype

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor in its dtype on disk.

        Raises:
            SourceError: there is no tensor of this name, or it holds a NaN or an infinity.
        """
        with self._opened(name) as tensors:
            value: torch.Tensor = tensors.get_tensor(name)
        if not bool(value.isfinite().all()):
            raise SourceError(f"{self.folder}: tensor {name!r} holds a NaN or an infinity; the checkpoint is damaged.")
        return value

    def _opened(self, name: str) -> Any:
        """Return an open handle of the shard that holds a tensor."""
        if name not in self.shapes:
            raise SourceError(f"{self.folder}: holds no tensor {name!r}.")
        return _opened(self._shard_of[name], "pt")

    def _read_headers(self) -> Mapping[str, Shape]:
        """Read the name and shape of every tensor, and note the shard that holds it."""
        shapes: dict[str, Shape] = {}
        for shard in self.shards:
            with _opened(shard, "np") as tensors:  # headers need no torch
                for name in tensors.keys():  # noqa: SIM118  (safe_open is no mapping)
                    shapes[name] = tuple(tensors.get_slice(name).get_shape())
                    self._shard_of[name] = shard
        return shapes

    def _find_shards(self) -> list[Path]:
        """Return the safetensors files that transformers would read.

        Raises:
            SourceError: a shard of the index is missing, or there are no safetensors.
        """
        # transformers looks in this order too, so that both always read the same files.
        whole, index = self.folder / "model.safetensors", self.folder / "model.safetensors.index.json"
        if whole.exists():
            return [whole]
        shards = _indexed(index) if index.exists() else sorted(self.folder.glob("*.safetensors"))
        if missing := [shard for shard in shards if not shard.exists()]:
            raise SourceError(f"{missing[0]}: missing, though the index names it. Get the whole checkpoint.")
        if shards:
            return shards
        if pickles := [path for pattern in PICKLES for path in self.folder.glob(pattern)]:
            raise SourceError(
                f"{pickles[0]}: a pickle checkpoint can run code when it is loaded, so it is refused. "
                "Get the safetensors version, or convert it where you trust it."
            )
        raise SourceError(f"{self.folder}: holds no .safetensors file.")


def _refuse_quantised(folder: Path, config: Mapping[str, Any]) -> None:
    """Check that a config is not of quantised weights."""
    packed = config.get("quantization_config")
    if packed:
        method = packed.get("quant_method", "unknown") if isinstance(packed, dict) else packed
        raise SourceError(
            f"{folder}: is quantised ({method}), and packed numbers cannot be transplanted. Take the unquantised "
            "checkpoint (or dequantise it), patch that, and quantise the result."
        )


def check_shapes(student: Checkpoint, teacher: Checkpoint, units: Sequence[Unit]) -> None:
    """Check that the teacher's weights fit into the student, by the headers alone.

    Raises:
        LineageError: the teacher has another architecture, or a unit's tensor in another shape.
    """
    if student.model_type != teacher.model_type:
        raise LineageError(
            f"{student.folder.name} is a {student.model_type} model and its teacher {teacher.folder.name} is a "
            f"{teacher.model_type} model. Choose a teacher of the student's architecture."
        )
    for name in (name for unit in units for name in unit.tensors):
        if student.shapes[name] != teacher.shapes.get(name):
            raise LineageError(
                f"{name}: the student has shape {student.shapes[name]}, the teacher {teacher.shapes.get(name)}. "
                "Choose a teacher of the student's size."
            )


def _indexed(index: Path) -> list[Path]:
    """Return the shards that an index names."""
    shard_of = _read_json(index).get("weight_map")
    if not isinstance(shard_of, dict) or not all(isinstance(name, str) for name in shard_of.values()):
        raise SourceError(f"{index}: has no table `weight_map` of tensor to file. Get the file again.")
    shards = sorted(set(shard_of.values()))
    if away := [name for name in shards if Path(name).name != name]:
        raise SourceError(f"{index}: names a file in another place, {away[0]!r:.80}. Shards lie next to their index.")
    if long := [name for name in shards if len(name.encode()) > 255 or not name.isprintable()]:
        raise SourceError(f"{index}: no file can have the name {long[0][:80]!r}. Get the file again.")
    return [index.parent / name for name in shards]


def _opened(shard: Path, framework: str) -> Any:
    """Return an open handle of a safetensors file, whose length was checked against its header."""
    require_header(shard)
    try:
        return safe_open(shard, framework=framework)
    except (SafetensorError, OSError) as error:
        raise SourceError(f"{shard}: not a whole safetensors file ({error}). Download it again.") from error


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a model folder."""
    return READER.table(path)
