"""What gating a student would need, told from its config and its tensors' shapes: disk, memory, probes and time.

Nothing is loaded, and of a hub only headers are read. Figures are estimates, by the arithmetic that stands beside them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_harness.errors import SourceError
from safety_harness.registry.fetch import resolve
from safety_harness.registry.load import Student
from safety_harness.registry.schema import ModelSpec
from safety_harness.weights.architectures import answering, enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import Shape, Unit, grouped

WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}
# Rows of the prior's backward passes, and numbers that one remembers a token, a layer and a hidden channel.
BACKWARD_ROWS, REMEMBERED = 16, 34
# Of a batch's keys and values: the cache that reads the questions, and recordings for all, half, … of the rows
# (recorded.py).
CACHES = 3
# Rows that a prior takes backward: two answers to 64 harmful and 128 harmless questions in three places; and what the
# steps of a descent ask beside (prior/), which keeps what the student says of so many tokens of each harmless answer
# and of each of its own task.
BACKWARD = {"norm": 0, "contrast": 3 * 2 * (64 + 128), "descent": 3 * 2 * (64 + 128) + 32 * (8 + 32 + 8)}
KEPT_TOKENS = 8
# Probes that searches took, in multiples of what is left out at once: 48 to 105 with 28 to 56 of it (reports/).
FEWEST, MOST = 1, 4
# Harmful, harmless and task questions of a search, the tokens of one with its template, and how many answers are
# heard to their end.
HARMFUL, HARMLESS, TASK, TOKENS, HEARD = 128, 128, 64, 64, 0.5


@dataclass(frozen=True)
class Device:
    """What computes: dense matrix products in ``dtype``, floating-point operations and bytes from memory a second."""

    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Sketch:
    """A model, as far as its headers tell: whether it is on this machine already, and how many bytes it has on disk."""

    config: Mapping[str, Any]
    shapes: Mapping[str, Shape]
    disk: int
    here: bool

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())


@dataclass(frozen=True)
class Need:
    """What gating one student would take. Bytes, numbers of probes from fewest to most, and seconds from and to."""

    student: str
    parameters: int
    movable: int
    download: int
    memory: int
    probes: tuple[int, int]
    seconds: tuple[float, float]


def plan(student: Student, device: Device) -> Need:
    """Estimate what gating *student* takes on *device*.

    Raises:
        SourceError: a model's headers are neither on this machine nor to be had.
        UnitError: its architecture is not known.
    """
    sketches = [sketch(spec) for spec in student.models]
    own = sketches[-1]
    settings = student.search
    units = enumerate_units(own.config, own.shapes, settings.roles)
    groups = len(grouped(units, settings.together))
    probes = min(settings.max_probes, FEWEST * groups), min(settings.max_probes, MOST * groups)
    probe = _probe_seconds(student, own, device)
    prior = _prior_seconds(student, own, device)
    return Need(
        student.id,
        own.parameters,
        sum(unit.parameters for unit in units),
        sum(found.disk for found in sketches if not found.here),
        _memory(student, own, units),
        probes,
        (prior + probes[0] * probe, prior + probes[1] * probe),
    )


def sketch(spec: ModelSpec) -> Sketch:
    """The headers of a model: of a folder on this machine, or of a hub's repository.

    Raises:
        SourceError: it is neither; a wheel or a GGUF file has to be prepared first.
    """
    if spec.hf and not spec.file:
        return _of_hub(spec)
    if spec.path and spec.path.is_dir():
        return _of_folder(resolve(spec), here=True)
    raise SourceError(f"{spec}: its shapes are not known before it is unpacked. Run `safety-harness fetch` first.")


def _of_folder(folder: Path, *, here: bool) -> Sketch:
    checkpoint = Checkpoint(folder)
    size = sum(shard.stat().st_size for shard in checkpoint.shards)
    return Sketch(checkpoint.config, checkpoint.shapes, size, here)


def _of_hub(spec: ModelSpec) -> Sketch:
    import huggingface_hub

    name = str(spec.hf)
    try:
        local = huggingface_hub.snapshot_download(name, revision=spec.revision, local_files_only=True)
        return _of_folder(Path(local), here=True)
    except (SourceError, OSError, ValueError):  # not here, or not all of it
        pass
    try:
        found = huggingface_hub.HfApi().get_safetensors_metadata(name, revision=spec.revision)
        config = json.loads(
            Path(huggingface_hub.hf_hub_download(name, "config.json", revision=spec.revision)).read_text()
        )
    except Exception as error:  # the client lets the errors of its transports through, which share no base
        raise SourceError(
            f"{spec}: its headers cannot be had from the hub ({type(error).__name__}). Check the name, the revision, "
            "your network and your access to it (`hf auth login`)."
        ) from error
    tensors = {key: about for file in found.files_metadata.values() for key, about in file.tensors.items()}
    size = sum(about.data_offsets[1] - about.data_offsets[0] for about in tensors.values())
    return Sketch(config, {key: tuple(about.shape) for key, about in tensors.items()}, size, here=False)


def _hidden(sketched: Sketch) -> int:
    config = answering(sketched.config)
    return int(next(config[name] for name in ("hidden_size", "n_embd", "d_model") if name in config))


def _layers(units: tuple[Unit, ...]) -> int:
    return 1 + max(unit.layer for unit in units)


def _memory(student: Student, own: Sketch, units: tuple[Unit, ...]) -> int:
    """Estimate the memory: the student, the teacher's movable tensors, and either a batch or the prior's gradients.

    Of a batch and the gradients the larger counts, in bytes.
    """
    family = student.family
    width = WIDTH[family.dtype]
    movable = sum(unit.parameters for unit in units)
    layers = _layers(units)
    keys = 2 * max((unit.width for unit in units if unit.role == "k"), default=_hidden(own))
    vocabulary = int(answering(own.config).get("vocab_size", 0))
    tokens = TOKENS + family.max_new_tokens
    batch = family.batch_size * (CACHES * tokens * layers * keys * width + vocabulary * (width + 4))
    # Gradients in the model's dtype, their sum in float32, and what a backward pass remembers.
    remembered = REMEMBERED * BACKWARD_ROWS * tokens * _hidden(own) * layers
    gradients = movable * (width + 4) + remembered
    if student.search.prior == "descent":
        gradients += (HARMLESS + (TASK if student.spec.task else 0)) * KEPT_TOKENS * vocabulary * 2
    return own.parameters * width + movable * width + max(batch, gradients)


def _probe_seconds(student: Student, own: Sketch, device: Device) -> float:
    """Questions read at the device's matrix rate; a token a row and pass, at its memory's pace where that is slower."""
    family = student.family
    screen = family.screen_tokens or family.max_new_tokens
    work = 2 * own.parameters
    weights = own.parameters * WIDTH[family.dtype] / device.bandwidth
    tasks = TASK if student.spec.task else 0
    seconds = (HARMFUL + HARMLESS + tasks) * TOKENS * work / device.flops
    for questions, rest in ((HARMFUL, HEARD), (HARMLESS, 0.0), (tasks, 1.0)):
        batches = math.ceil(questions / family.batch_size)
        rows = min(questions, family.batch_size)
        passes = batches * (screen + rest * (family.max_new_tokens - screen))
        seconds += passes * max(weights, rows * work / device.flops)
    return seconds


def _prior_seconds(student: Student, own: Sketch, device: Device) -> float:
    """Of the prior's gradients: a backward pass costs two forward passes."""
    return 3 * BACKWARD[student.search.prior] * TOKENS * 2 * own.parameters / device.flops
