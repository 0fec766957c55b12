"""Read a checkpoint folder lazily: names and shapes first, a tensor only when it is asked for."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from safety_harness.digests import sha256_of_weights
from safety_harness.errors import LineageError, SourceError
from safety_harness.files import sha256_text
from safety_harness.reading import Reader
from safety_harness.weights.folder import PICKLES as PICKLES
from safety_harness.weights.folder import check_index, check_templates, weight_files
from safety_harness.weights.header import READER, require_header
from safety_harness.weights.names import is_computed, misnaming

if TYPE_CHECKING:
    import torch

    from safety_harness.weights.units import Shape, Unit

# Files next to the weights that decide answers too: configs, tokenizer, chat template, end-of-answer tokens.
BESIDE = ("*.json", "*.jinja", "*.model", "*.txt", "tokenizer.model.*", "*.tiktoken")
_FOLDER = Reader(SourceError, missing="no such model folder. Check the path.")
_FURTHER_TEMPLATES = "additional_chat_templates/*.jinja"
_FLOATS = frozenset(("F64", "F32", "F16", "BF16"))


class Checkpoint:
    """The safetensors of one model folder. No tensor is in memory until :meth:`tensor` is called.

    Raises:
        SourceError: the folder or its config is missing, the weights are no safetensors (pickles are refused), or a
            shard is missing or truncated. Or the weights are quantised: only a model that is gated *as_it_is* may be.
    """

    def __init__(self, folder: Path, *, as_it_is: bool = False) -> None:
        self.folder = folder
        _FOLDER.require_folder(folder)
        self.config = READER.table(folder / "config.json")
        self.quantised = ""
        """How the config says that the weights are quantised; empty where it does not."""
        for part in (self.config, *(value for value in self.config.values() if isinstance(value, dict))):
            if packed := part.get("quantization_config"):
                self.quantised = str(packed.get("quant_method", "unknown") if isinstance(packed, dict) else packed)
                if not as_it_is:
                    raise _quantised(folder, self.quantised)
        check_templates(folder)
        files, home = weight_files(folder, self.config)
        self.shards: Sequence[Path] = files
        """The safetensors files of the folder."""
        self._shard_of: dict[str, Path] = {}
        self.shapes: Mapping[str, Shape] = self._read_headers()
        """The name and shape of every tensor on disk."""
        if home is not None:
            check_index(folder, home, self._shard_of)

    @property
    def model_type(self) -> str:
        """The architecture, in the words of transformers, or an empty string."""
        return str(self.config.get("model_type", ""))

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 over weights, configs and tokenizer: everything that decides the answers of this model."""
        files = [*self.shards, *companions(self.folder)]
        return sha256_text("\n".join(f"{path.relative_to(self.folder)} {sha256_of_weights(path)}" for path in files))

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
            header = read_header(shard)
            if not self.quantised:  # or the config would not say how to read the numbers
                refuse_packed(self.folder, header)
            for name, (shape, _) in header.items():
                if name in shapes:
                    raise SourceError(
                        f"{name} is both in {self._shard_of[name]} and in {shard.name}. Which of them a loader takes "
                        "is chance: remove one."
                    )
                shapes[name] = shape
                self._shard_of[name] = shard
        return shapes


def companions(folder: Path) -> list[Path]:
    """Return the files of a model's or an adapter's folder that decide answers and hold no weights."""
    return sorted({path for pattern in (*BESIDE, _FURTHER_TEMPLATES) for path in folder.glob(pattern)})


def read_header(file: Path) -> Mapping[str, tuple[Shape, str]]:
    """Return shape and dtype of every tensor in a safetensors file.

    Raises:
        SourceError: the file is no whole safetensors file.
    """
    with _opened(file, "np") as tensors:  # headers need no torch
        return {
            name: (tuple(tensors.get_slice(name).get_shape()), tensors.get_slice(name).get_dtype())
            for name in tensors.keys()  # noqa: SIM118  (safe_open is no mapping)
        }


def refuse_packed(folder: Path, header: Mapping[str, tuple[Shape, str]]) -> None:
    """Check that tensors are stored as floating-point numbers of at least 16 bits.

    Raises:
        SourceError: one is not, as in quantised weights. The message names it.
    """
    for name, (shape, dtype) in header.items():
        if dtype not in _FLOATS and not is_computed(name, shape):
            raise _quantised(folder, f"{name!r} is stored as {dtype}")


def _quantised(folder: Path, how: str) -> SourceError:
    """Return the error for weights that are packed, or stored as anything but floating-point numbers."""
    return SourceError(
        f"{folder}: is quantised ({how}), and packed numbers cannot be transplanted. Take the unquantised "
        "checkpoint (or dequantise it), patch that, and quantise the result. To gate it as it is, name no "
        "`teacher`, or serve it (`served`)."
    )


def check_shapes(student: Checkpoint, teacher: Checkpoint, units: Sequence[Unit]) -> None:
    """Check that the teacher's weights fit into the student, by the headers alone.

    Raises:
        LineageError: the teacher has another architecture, or a unit's tensor in another shape or by another name.
    """
    if student.model_type != teacher.model_type:
        raise LineageError(
            f"{student.folder.name} is a {student.model_type} model and its teacher {teacher.folder.name} is a "
            f"{teacher.model_type} model. Choose a teacher of the student's architecture."
        )
    for name in (name for unit in units for name in unit.tensors):
        if name not in teacher.shapes:
            if wrong := misnaming(teacher.shapes, [name]):
                advice = f"its tensors {wrong}, as in the student. Save both models with one version of transformers"
            else:
                advice = (
                    f"holds no tensor {name!r}, as the student does. Choose a teacher of the student's size, and save "
                    "both with one version of transformers"
                )
            raise LineageError(f"{teacher.folder.name}: {advice}.")
        if student.shapes[name] != teacher.shapes[name]:
            raise LineageError(
                f"{name}: the student has shape {student.shapes[name]}, the teacher {teacher.shapes[name]}. "
                "Choose a teacher of the student's size."
            )


def _opened(shard: Path, framework: str) -> Any:
    """Return an open handle of a safetensors file, whose length was checked against its header."""
    require_header(shard)
    try:
        return safe_open(shard, framework=framework)
    except (SafetensorError, OSError) as error:
        raise SourceError(f"{shard}: not a whole safetensors file ({error}). Download it again.") from error
