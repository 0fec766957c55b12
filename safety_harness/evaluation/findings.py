"""Find what will go wrong in a gated run before any model is loaded: one sentence each, with what to do."""

from __future__ import annotations

import functools
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safety_harness.errors import HarnessError
from safety_harness.evaluation.estimate import Need, plan
from safety_harness.evaluation.machine import Machine, free_disk
from safety_harness.evaluation.preflight import check_judge, check_local_files
from safety_harness.files import cache_dir, nearest_folder
from safety_harness.registry.fetch import HUB_SECONDS, fetched
from safety_harness.registry.judges import EndpointJudge
from safety_harness.registry.load import Student
from safety_harness.registry.schema import ModelSpec
from safety_harness.registry.sources import PromptSource
from safety_harness.served.client import unreachable
from safety_harness.weights.folder import TEMPLATES
from safety_harness.weights.header import READER

Level = Literal["breaks", "warns"]
GIB = 2**30
# From so many hours on, a plan's upper end is worth a warning.
LONG_HOURS = 6.0
# Files of which every tokenizer has one.
TOKENIZERS = ("*token*", "*vocab*", "*.model", "tekken.json")
# Packages that the optional parts of a registry need, and the extra that brings them.
ADAPTERS, GGUF, HUB, FIGURES = ("peft", "adapters"), ("gguf", "gguf"), ("datasets", "hub"), ("matplotlib", "figures")
SPREAD = ("accelerate", "spread")


@dataclass(frozen=True)
class Finding:
    """Something that will break a run, or that a run can do without. ``about`` is a student, or what it is of."""

    level: Level
    about: str
    message: str

    def __str__(self) -> str:
        return f"{self.level} {self.about}: {self.message}"


def findings(students: Sequence[Student], machine: Machine, reports: Path) -> Iterator[Finding]:
    """Yield everything that will go wrong when *students* are gated on *machine*, with reports in a folder."""
    yield from _folders(reports)
    yield from _busy(machine)
    if importlib.util.find_spec(FIGURES[0]) is None:
        yield _missing("warns", "reports", FIGURES, "figures")
    seen: set[Finding] = set()
    _not_on_hub.cache_clear()
    for student in students:  # students of a family share much of what they miss
        new = [finding for finding in _of_student(student, machine) if finding not in seen]
        seen.update(new)
        yield from new


def template_of(spec: ModelSpec) -> bool | None:
    """Return whether a model has a chat template; None where that is not known before it is prepared or fetched."""
    if spec.chat_template:
        return True
    folders = [*spec.adapters, *([spec.path] if spec.path else [])]
    if any(_has_template(folder) for folder in folders):
        return True
    return False if spec.path and spec.path.is_dir() else None


def _has_template(folder: Path) -> bool:
    if any((folder / name).exists() for name in TEMPLATES):
        return True
    config = folder / "tokenizer_config.json"
    return config.exists() and bool(READER.table(config).get("chat_template"))


def _folders(reports: Path) -> Iterator[Finding]:
    """Yield the folders of a run that cannot be written to."""
    advice = {
        "cache": "Name another one in $SAFETY_HARNESS_CACHE.",
        "reports": "Run elsewhere, or name a report folder.",
    }
    for name, folder in (("cache", cache_dir()), ("reports", reports)):
        try:
            with tempfile.TemporaryFile(dir=nearest_folder(folder)):
                pass
        except OSError as error:
            yield Finding("breaks", name, f"{folder} cannot be written to ({error.strerror}). {advice[name]}")


def _busy(machine: Machine) -> Iterator[Finding]:
    """Yield a warning where other work keeps the cores busy: each thread more then makes a run slower."""
    idle = machine.cores - machine.load
    if machine.cores > 1 and idle < machine.cores / 2:
        yield Finding(
            "warns",
            "machine",
            f"{machine.load:.1f} of {machine.cores} cores are busy. Several workers would wait for each other: run "
            f"with -n {max(1, round(idle))}, or end the other work.",
        )


def _of_student(student: Student, machine: Machine) -> Iterator[Finding]:
    """Yield what will go wrong with one student. A later check that needs what an earlier one misses is left out."""
    yield from _extras(student)
    yield from _judges(student)
    try:
        check_local_files(student)
        has_template = template_of(student.spec)
    except HarnessError as error:
        yield Finding("breaks", student.id, str(error))
        return
    yield from _of_models(student)
    missing = [finding for spec in student.models if (finding := _hub(spec))]
    yield from missing
    if has_template is False:
        yield Finding(
            "warns",
            student.id,
            "has no chat template, so questions are asked without one. A base model answers so. Of a chat model get "
            "the template (chat_template.jinja).",
        )
    if missing:
        return
    try:
        need = plan(student, machine.device)
    except HarnessError:  # a wheel or a GGUF file is not known before it is unpacked, and without a teacher is no plan
        return
    yield from _room(student, need, machine)


def _of_models(student: Student) -> Iterator[Finding]:
    """Yield what the folders of the models lack, and a server that is not there."""
    for spec in student.models:
        folders = [*spec.adapters, *([spec.path] if spec.path else [])]
        if spec.path and not any(found for folder in folders for name in TOKENIZERS for found in folder.glob(name)):
            message = f"{spec.path} holds no tokenizer. Get its files (tokenizer.json or tokenizer.model)."
            yield Finding("breaks", student.id, message)
    teacher = student.family.teacher
    where = [key for key in ModelSpec.model_fields if key != "licence"]
    if teacher and student.patchable and all(getattr(teacher, key) == getattr(student.spec, key) for key in where):
        message = "is its own teacher, so no patch can change it. Name an aligned model in `teacher`."
        yield Finding("warns", student.id, message)
    if student.spec.served and (why := unreachable(student.spec.served)):
        yield Finding("breaks", student.id, f"{why}. Start the server, or correct `url` in the registry.")


def _judges(student: Student) -> Iterator[Finding]:
    """Yield why a judge of the student's gate cannot be asked, as far as that can be told without its model."""
    for name, row in student.family.models_that_judge.items():
        try:
            check_judge(name, row)
        except HarnessError as error:
            yield Finding("breaks", student.family.name, str(error))
            continue
        if isinstance(row, EndpointJudge) and (why := unreachable(row)):
            yield Finding("breaks", student.family.name, f"judge {name}: {why}. Start the server, or correct `url`.")


def _extras(student: Student) -> Iterator[Finding]:
    """Yield the optional packages that the registry needs and that are not installed."""
    specs, family = student.models, student.family
    splits = [family.harmful, family.harmless, *([student.spec.task] if student.spec.task else [])]
    sources: list[PromptSource] = [family.text, *family.further.values(), *family.must.values()]
    sources += [source for split in splits for source in (*split.searched, split.report)]
    needed = {
        ADAPTERS: any(spec.adapters for spec in specs),
        GGUF: any(spec.gguf or str(spec.file).endswith(".gguf") for spec in specs),
        HUB: any(source.hf and source.column for source in sources),
        SPREAD: family.device_map is not None,
    }
    for package, is_needed in needed.items():
        if is_needed and importlib.util.find_spec(package[0]) is None:
            yield _missing("breaks", student.family.name, package, "what the registry names")


def _missing(level: Level, about: str, package: tuple[str, str], what: str) -> Finding:
    name, extra = package
    return Finding(level, about, f"{what} needs {name}, which is not installed: pip install 'safety-harness[{extra}]'.")


def _hub(spec: ModelSpec) -> Finding | None:
    """Return why a model of the hub that is not in the cache cannot be fetched; None if it can."""
    if not spec.hf or fetched(spec):
        return None
    message = _not_on_hub(spec.hf, spec.file or "config.json", spec.revision)
    return Finding("breaks", str(spec), message) if message else None


@functools.lru_cache(maxsize=256)  # a hub that is not in reach is waited for once a model
def _not_on_hub(repository: str, file: str, revision: str | None) -> str | None:
    """Return why a file of the hub cannot be fetched; None if it can."""
    from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    token = get_token()
    if os.environ.get("HF_HUB_OFFLINE"):
        return "is not in the cache, and HF_HUB_OFFLINE is set. Fetch it first."
    try:
        get_hf_file_metadata(hf_hub_url(repository, file, revision=revision), timeout=HUB_SECONDS)
        return None
    except GatedRepoError:
        how = "ask for access on its page" if token else "no token is set: `hf auth login`, or $HF_TOKEN"
        return f"its owner gives access on request; {how}."
    except RepositoryNotFoundError:
        how = "Check the name" if token else "Check the name; a private one needs a token (`hf auth login`)"
        return f"the hub knows no such repository. {how}."
    except EntryNotFoundError:
        return f"the repository holds no {file}. Correct it in the registry."
    except RevisionNotFoundError:
        return "the hub knows no such revision. Correct `revision` in the registry."
    except Exception as error:  # the client lets the errors of its transports through, which share no base
        why = type(error).__name__
        return f"is not in the cache, and the hub cannot be reached ({why}). Check the network."


def _room(student: Student, need: Need, machine: Machine) -> Iterator[Finding]:
    """Yield where memory, disk, time or the number format will not do for one student."""
    family = student.family
    free, where = (machine.gpu_memory, "the GPU has") if machine.gpu else (machine.memory, "memory has")
    if machine.gpu and family.device_map:
        free, where = machine.gpus_memory, "the GPUs together have"
    wanted = f"needs about {need.memory / GIB:.1f} GiB, and {where} {free / GIB:.1f} free"
    if need.memory > free:
        advice = "Take a larger machine" if machine.gpu else "Take a larger machine, one with a GPU"
        if need.memory <= machine.gpus_memory:
            advice = 'Spread it over all GPUs (`device_map = "auto"`)'
        yield Finding("breaks", student.id, f"{wanted}. {advice}, lower batch_size, or choose a shorter dtype.")
    elif need.memory > family.memory_gib * GIB * 1.5:
        yield Finding(
            "warns",
            family.name,
            f"memory_gib is {family.memory_gib:g}, and a worker needs about {need.memory / GIB:.1f} GiB: -n auto would "
            "start too many. Raise it.",
        )
    disk = free_disk()
    if need.download > disk:
        yield Finding(
            "breaks",
            student.id,
            f"{need.download / GIB:.1f} GiB are to be fetched, and the disk of the cache has {disk / GIB:.1f} free.",
        )
    if family.dtype == "bfloat16" and not machine.bfloat16:
        yield Finding(
            "warns",
            family.name,
            'dtype is "bfloat16", for which this machine has no unit: several times slower than "float32".',
        )
    hours = need.seconds[1] / 3600
    if hours > LONG_HOURS:
        slow = "" if machine.gpu else " Without a GPU a model of this size is slow."
        yield Finding("warns", student.id, f'may take {hours:.0f} hours here.{slow} `preset = "quick"` takes less.')
