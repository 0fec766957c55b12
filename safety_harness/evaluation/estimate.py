"""Estimate what gating a student needs, from its config and its tensors' shapes: disk, memory, probes and time.

No weights are loaded. A hub is asked for headers alone. The arithmetic stands next to each figure.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_harness.errors import SourceError
from safety_harness.registry.fetch import fetched, resolve
from safety_harness.registry.load import Student
from safety_harness.registry.schema import ModelSpec
from safety_harness.weights.architectures import answering, enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.header import READER
from safety_harness.weights.moved import changed
from safety_harness.weights.units import Shape, Unit, grouped

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one number, by dtype."""
# Rows of one backward pass of a prior (search/priors/gradients.py).
ROWS_PER_PASS = 16
# Tokens of a question that each row of a backward pass reads itself: rows read what all begin with, as a system prompt,
# together.
OWN_TOKENS = 32
# What a backward pass remembers for each token, layer and hidden channel: numbers in the model's dtype, and bytes of
# what is computed in float32. A Llama takes 14 and 23 (benchmarks/speed/prior_memory.md), and with a wider MLP more.
REMEMBERED_NUMBERS, REMEMBERED_BYTES = 16, 24
# Bytes for each token of an answer and word of the vocabulary: log-probabilities, and their gradients.
LOGPROB_BYTES = 11
# Copies of a batch's keys and values: the cache that reads the questions, and the CUDA graphs of all rows, of half of
# them and so on, which together hold twice as much (models/decoding/cuda_graphs.py).
CACHES = 3
# Rows of all backward passes of a prior: two answers to each of 64 harmful and 128 harmless questions, at three points.
# A descent adds the questions of its 32 steps (search/priors/descent.py).
BACKWARD_ROWS = {"norm": 0, "contrast": 3 * 2 * (64 + 128), "descent": 3 * 2 * (64 + 128) + 32 * (8 + 32 + 8)}
# Tokens of each harmless answer, and of each answer to the task, for which a descent keeps the student's logits.
KEPT_TOKENS = 8
# Probes of a search for each group of units that is left out at once. Searches took 48 to 105 probes for 28 to 56
# groups (reports/).
MIN_PROBES_PER_GROUP, MAX_PROBES_PER_GROUP = 1, 4
# What became of the 894 probes in the 17 searches of reports/smollm2.json: too few refusals, another budget, accepted.
PROBES_BY_OUTCOME = (0.80, 0.10, 0.10)
# Questions of a search.
HARMFUL_QUESTIONS, HARMLESS_QUESTIONS, TASK_QUESTIONS = 128, 128, 64
# Tokens of a question with its template.
QUESTION_TOKENS = 64
# How many answers to harmful questions are decoded in full; the others are broken off.
SHARE_DECODED_IN_FULL = 0.5
# Reading questions reaches this share of the rate of a large matrix product: 43 % on a GPU
# (benchmarks/speed/large_model.md) and on a core (probe_speed.md).
READING_SHARE = 0.43
# A forward pass that adds one token reads the weights at this share of the memory's bandwidth: 64 rows of 6.74 billion
# parameters take 10.02 ms, and reading them alone 3.20 ms (large_model.md).
PASSES_SHARE = 0.32


@dataclass(frozen=True)
class Device:
    """What computes: floating-point operations of large matrix products, and bytes copied in memory, a second."""

    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Sketch:
    """A model, as far as its headers tell. ``disk`` is in bytes, and ``here`` says that it is on this machine."""

    config: Mapping[str, Any]
    shapes: Mapping[str, Shape]
    disk: int
    here: bool

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return sum(math.prod(shape) for shape in self.shapes.values())


@dataclass(frozen=True)
class Need:
    """What gating one student takes: parameters, bytes, and the least and most of probes and of seconds."""

    student: str
    parameters: int
    movable: int
    download: int
    memory: int
    probes: tuple[int, int]
    seconds: tuple[float, float]


def plan(student: Student, device: Device, sketches: Sequence[Sketch] = ()) -> Need:
    """Estimate what searching for *student*'s patch takes on *device*. *sketches* are those of its models, if known.

    Raises:
        ConfigError: it has no teacher, so there is no search.
        SourceError: a model's headers are neither on this machine nor on a hub.
        UnitError: its architecture is not known.
    """
    student.require_teacher()
    sketches = sketches or sketched(student)
    model = sketches[-1]
    settings = student.search
    units = enumerate_units(model.config, model.shapes, settings.roles, settings.components)
    groups = len(grouped(units, settings.together))
    fewest, most = (min(settings.max_probes, each * groups) for each in (MIN_PROBES_PER_GROUP, MAX_PROBES_PER_GROUP))
    probe, prior = probe_seconds(student, model, device), prior_seconds(student, model, device)
    return Need(
        student.id,
        model.parameters,
        sum(unit.parameters for unit in units),
        sum(missing.disk for missing in sketches if not missing.here),
        needed_memory(student, model, units),
        (fewest, most),
        (prior + fewest * probe, prior + most * probe),
    )


def sketched(student: Student) -> list[Sketch]:
    """Read the headers of all models of *student*, its own last.

    Raises:
        SourceError: as :func:`sketch`.
    """
    return [sketch(spec) for spec in student.models]


def sketch(spec: ModelSpec) -> Sketch:
    """Read the headers of a model, from a folder on this machine or from a hub's repository.

    Raises:
        SourceError: it is neither: a wheel or a GGUF file has to be prepared first.
    """
    if spec.hf and not spec.file:
        return _of_hub(spec)
    if spec.path and spec.path.is_dir():
        return _of_folder(resolve(spec), here=True)
    if spec.path:
        resolve(spec)  # says that there is no such path
    raise SourceError(f"{spec}: its shapes are not known before it is unpacked. Run `safety-harness fetch` first.")


def _of_folder(folder: Path, *, here: bool) -> Sketch:
    """Read the headers of a checkpoint in a *folder*."""
    checkpoint = Checkpoint(folder)
    size = sum(shard.stat().st_size for shard in checkpoint.shards)
    return Sketch(checkpoint.config, checkpoint.shapes, size, here)


def _of_hub(spec: ModelSpec) -> Sketch:
    """Read the headers of a hub's repository: from the hub's cache if the whole model is there.

    Raises:
        SourceError: the hub does not give them.
    """
    import huggingface_hub

    name = str(spec.hf)
    if local := fetched(spec):
        with contextlib.suppress(SourceError):  # not all of it is there
            return _of_folder(local, here=True)
    try:
        metadata = huggingface_hub.HfApi().get_safetensors_metadata(name, revision=spec.revision)
        config = READER.table(Path(huggingface_hub.hf_hub_download(name, "config.json", revision=spec.revision)))
    except Exception as error:  # the client lets the errors of its transports through, which share no base
        raise SourceError(
            f"{spec}: its headers cannot be had from the hub ({type(error).__name__}). Check the name, the revision, "
            "your network and your access to it (`hf auth login`)."
        ) from error
    tensors = {key: tensor for file in metadata.files_metadata.values() for key, tensor in file.tensors.items()}
    size = sum(tensor.data_offsets[1] - tensor.data_offsets[0] for tensor in tensors.values())
    return Sketch(config, {key: tuple(tensor.shape) for key, tensor in tensors.items()}, size, here=False)


def _hidden(model: Sketch) -> int:
    """Return the width of the residual stream."""
    config = answering(model.config)
    hidden = next((config[name] for name in ("hidden_size", "n_embd", "d_model") if name in config), None)
    if not isinstance(hidden, int):
        raise SourceError(f"config.json: hidden_size is {hidden!r:.80}, not the width of a model. Get the file again.")
    return hidden


def needed_memory(student: Student, model: Sketch, units: tuple[Unit, ...]) -> int:
    """Estimate the memory in bytes: the student, what may move, and a batch or a prior's backward pass.

    A batch and a backward pass are never held together, so the larger counts.
    """
    family = student.family
    width = BYTES[family.dtype]
    numbers = sum(unit.parameters for unit in units)
    movable = numbers * width
    if student.search.components:  # in float32, and the student's own numbers of every tensor that they change
        movable = numbers * BYTES["float32"] + changed(units) * width
    layers = 1 + max(unit.layer for unit in units)
    whole = enumerate_units(model.config, model.shapes, ("k",)) if any(unit.role == "k" for unit in units) else ()
    keys = 2 * max((unit.width for unit in whole), default=_hidden(model))
    vocabulary = int(answering(model.config).get("vocab_size", 0))
    tokens = QUESTION_TOKENS + family.max_new_tokens
    batch = family.batch_size * (CACHES * tokens * layers * keys * width + vocabulary * (width + 4))
    backward = ROWS_PER_PASS * _remembered(student, model, layers, vocabulary) + _one_gradient(units, width)
    if student.search.prior == "descent":
        questions = HARMLESS_QUESTIONS + (TASK_QUESTIONS if student.spec.task else 0)
        backward += questions * KEPT_TOKENS * vocabulary * BYTES["bfloat16"]
    return model.parameters * width + movable + max(batch, backward)


def _remembered(student: Student, model: Sketch, layers: int, vocabulary: int) -> int:
    """Estimate the bytes that a backward pass remembers of one row."""
    family = student.family
    each = REMEMBERED_NUMBERS * BYTES[family.dtype] + REMEMBERED_BYTES
    states = (OWN_TOKENS + family.max_new_tokens) * layers * _hidden(model) * each
    return states + family.max_new_tokens * vocabulary * LOGPROB_BYTES


def _one_gradient(units: tuple[Unit, ...], width: int) -> int:
    """Return the bytes of the largest gradient, its copy in another layout, and in float32 what it is multiplied by."""
    sizes: dict[str, int] = {}
    for part in (part for unit in units for part in unit.parts):
        spot = part.disk
        size = spot.each * len(spot.places) if spot.axis >= 0 else math.prod(spot.shape)
        sizes[part.memory.name] = sizes.get(part.memory.name, 0) + size
    return max(sizes.values()) * (2 * width + 2 * BYTES["float32"])


def probe_seconds(student: Student, model: Sketch, device: Device) -> float:
    """Estimate the seconds of a probe, the mean over what becomes of probes."""
    return sum(
        share * seconds
        for share, seconds in zip(PROBES_BY_OUTCOME, seconds_by_outcome(student, model, device), strict=True)
    )


def seconds_by_outcome(student: Student, model: Sketch, device: Device) -> tuple[float, float, float]:
    """Estimate the seconds of a probe with too few refusals, of one that fails another budget, and of an accepted one.

    With too few refusals, every answer is broken off, and nothing else is asked.
    """
    most = student.family.max_new_tokens
    screen = student.family.screen_tokens or most
    in_full = screen + SHARE_DECODED_IN_FULL * (most - screen)
    refused = asking_seconds(student, model, device, HARMFUL_QUESTIONS, in_full)
    harmless = asking_seconds(student, model, device, HARMLESS_QUESTIONS, screen)
    task = asking_seconds(student, model, device, TASK_QUESTIONS, most) if student.spec.task else 0.0
    lost = asking_seconds(student, model, device, HARMFUL_QUESTIONS, screen)
    return lost, refused + harmless, refused + harmless + task


def asking_seconds(student: Student, model: Sketch, device: Device, questions: int, tokens: float) -> float:
    """Estimate the seconds of asking *questions* for answers of so many *tokens*.

    Questions are read at the device's matrix rate. Answers take a forward pass a token, at the pace of the device's
    memory if that is slower.
    """
    family = student.family
    work = 2 * model.parameters / (READING_SHARE * device.flops)
    weights = model.parameters * BYTES[family.dtype] / (PASSES_SHARE * device.bandwidth)
    passes = math.ceil(questions / family.batch_size) * tokens
    return questions * QUESTION_TOKENS * work + passes * max(weights, min(questions, family.batch_size) * work)


def prior_seconds(student: Student, model: Sketch, device: Device) -> float:
    """Estimate the seconds of the prior's gradients. A backward pass costs two forward passes."""
    rows = BACKWARD_ROWS[student.search.prior]
    return 3 * rows * QUESTION_TOKENS * 2 * model.parameters / (READING_SHARE * device.flops)
