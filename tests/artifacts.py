"""Artifacts of pairs of tiny random models, and what lies in a checkpoint."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from safety_harness.evaluation.evaluator import Evaluator, open_evaluator
from safety_harness.gate.records import Patch
from safety_harness.patch.folder import Artifact
from safety_harness.search.write_patch import build
from safety_harness.weights.units import Unit, cut, group_id
from tests.builders import make_pair
from tests.refusal_world import entry
from tests.samples import whole_patch


@dataclass(frozen=True)
class Made:
    """An artifact, the evaluator that it was made on, what it moves, and the folders of student and teacher."""

    artifact: Artifact
    evaluator: Evaluator
    units: tuple[Unit, ...]
    student: Path
    teacher: Path


def make_artifact(
    root: Path,
    questions: Path,
    architecture: str = "llama",
    *,
    tied: bool = True,
    shard: str = "1GB",
    bare: bool = False,
    seed: int = 0,
    dtype: str = "float32",
    whole: bool = False,
    grain: str = "channel",
    name: str = "patch",
    **options: Any,
) -> Made:
    """Make an artifact *name* below *root*; a pair of models that is there already is used again."""
    pair = root / architecture / "student", root / architecture / "teacher"
    if not pair[0].exists():
        make_pair(root / architecture, architecture, tied=tied, shard=shard, bare=bare)
    models = {"student": str(pair[0]), "teacher": str(pair[1])}
    evaluator = open_evaluator(entry(questions, **models, dtype=dtype, search={"grain": grain}))
    units = some_units(evaluator, seed, whole=whole)
    artifact = build(evaluator, patch_of(evaluator, units, grain=grain), root / name, **options)
    return Made(artifact, evaluator, units, *pair)


def some_units(evaluator: Evaluator, seed: int, *, whole: bool = False) -> tuple[Unit, ...]:
    """Draw a third of the modules; unless *whole*, only three channels of all of them but the first."""
    rng = random.Random(seed)
    modules = sorted(rng.sample(evaluator.units, len(evaluator.units) // 3))
    if whole:
        return tuple(modules)
    return (modules[0], *(cut(unit, rng.sample(range(unit.width), 3)) for unit in modules[1:]))


def patch_of(evaluator: Evaluator, units: Sequence[Unit], **changes: Any) -> Patch:
    """Return a patch of *units*, as a search finds one."""
    ids = tuple(group_id((unit,)) for unit in units)
    facts = {
        "student": evaluator.student.id, "units": ids, "certificate": dict.fromkeys(ids, "tested"), "minimal": True,
        "parameters": sum(unit.parameters for unit in units), "total_parameters": evaluator.checkpoint.parameters,
        "prior": "contrast", "grain": "channel",
    }  # fmt: skip
    return whole_patch(**{**facts, **changes})


def bits(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every tensor of a checkpoint, as torch reads them."""
    tensors = {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}
    return {name: value.contiguous().view(torch.uint8).numpy().tobytes() for name, value in tensors.items()}


def files(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below *folder*."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
