"""Put a patch into a checkpoint on disk, tell whether it is there, and take it out again: byte for byte."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from safety_harness.errors import ArtifactError
from safety_harness.files import refuse_existing, sha256_file, whole_folder
from safety_harness.patch.folder import Artifact
from safety_harness.patch.manifest import Entry
from safety_harness.patch.tensor_bytes import Raw, Stored, digest, stored_tensors, taken, with_channels
from safety_harness.weights.checkpoint import BESIDE, PICKLES, Checkpoint

# Files that hold a model's weights once more, in this or another format, and what indexes them.
WEIGHTS = (*PICKLES, "*.safetensors", "*.gguf", "*.h5", "*.msgpack", "*.ot", "*.onnx", "*.onnx_data", "*.tflite")
INDEX = "*.index.json"


class State(StrEnum):
    """What a patch is to a model: not in it, in it, in it in part, or made for another model."""

    CLEAN = "clean"
    APPLIED = "applied"
    PARTLY = "partly applied"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class Verified:
    """What was found. ``foreign`` says what first differs of a foreign model; ``beside`` names files other than weights
    (configs, tokenizer, chat template) that are missing, changed or new since the gate's evidence was measured."""

    state: State
    foreign: str = ""
    unapplied: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


def verify(artifact: Artifact, model: Path) -> Verified:
    """Compare every tensor of the checkpoint in *model* with what the artifact knows; one is in memory at a time.

    Raises:
        SourceError: *model* is no whole checkpoint of safetensors.
    """
    manifest = artifact.manifest
    checkpoint = Checkpoint(model)
    tensors = stored_tensors(checkpoint)
    if foreign := _first_foreign(artifact, tensors):
        return Verified(State.FOREIGN, foreign)
    unapplied = []
    for entry in manifest.entries:
        found = digest(tensors[entry.tensor].read())
        if found == entry.before != entry.after:
            unapplied.append(entry.tensor)
        elif found != entry.after:
            return Verified(State.FOREIGN, f"{entry.tensor} has sha256 {found}, before patching {entry.before}")
    for name, expected in manifest.rest.items():
        if tensors[name].fingerprint != expected:
            return Verified(State.FOREIGN, f"{name} has other numbers, or another shape or dtype")
    changing = sum(entry.before != entry.after for entry in manifest.entries)
    state = State.APPLIED if not unapplied else State.CLEAN if len(unapplied) == changing else State.PARTLY
    return Verified(state, unapplied=tuple(unapplied), beside=beside(artifact, checkpoint))


def require(artifact: Artifact, model: Path, *states: State) -> None:
    """Go on only where the patch is to the model what it must be.

    Raises:
        ArtifactError: it is not.
        SourceError: *model* is no whole checkpoint of safetensors.
    """
    found = verify(artifact, model)
    if found.state not in states:
        missing = f"{found.unapplied[0]} and {len(found.unapplied) - 1} others" if found.unapplied else ""
        why = {
            State.FOREIGN: f"is not the model that the patch was made for: {found.foreign}",
            State.APPLIED: "holds this patch already",
            State.PARTLY: f"holds a part of this patch, but not {missing}. Revert it first",
            State.CLEAN: "does not hold this patch",
        }[found.state]
        raise ArtifactError(f"{model}: {why}.")


def apply(artifact: Artifact, model: Path, out: Path, *, link: bool = False) -> tuple[str, ...]:
    """Write the checkpoint in *model* with the patch in it to the new folder *out*.

    Shards that hold nothing of it are copied, or with *link* hard-linked; of the others a copy is written over where
    the patch lies. All that was written is read back and compared. *out* is there whole or not at all. Files that hold
    the unpatched weights once more (pickles, GGUF, safetensors that no index names) are left out, and returned.

    Raises:
        ArtifactError: the model is not the student that the patch was made for, or holds it already.
        SourceError: *model* is no whole checkpoint of safetensors.
        HarnessError: *out* exists or lies in *model*, or the disk is full or may not be written to.
    """
    require(artifact, model, State.CLEAN)
    return _rewritten(artifact, model, out, artifact.new, lambda entry: entry.after, State.APPLIED, link=link)


def revert(
    artifact: Artifact, model: Path, out: Path, student: Path | None = None, *, link: bool = False
) -> tuple[str, ...]:
    """Write the patched checkpoint in *model* as it was before to the new folder *out*, as :func:`apply` does.

    The student's own numbers come from the artifact, or where it does not hold them from the checkpoint *student*.

    Raises:
        ArtifactError: the patch is not in the model, or the student's own numbers are nowhere.
        SourceError: *model* or *student* is no whole checkpoint of safetensors.
        HarnessError: *out* exists or lies in *model*, or the disk is full or may not be written to.
    """
    require(artifact, model, State.APPLIED, State.PARTLY)
    own = own_numbers(artifact, student)
    return _rewritten(artifact, model, out, own, lambda entry: entry.before, State.CLEAN, link=link)


def own_numbers(artifact: Artifact, student: Path | None) -> Callable[[Entry], Raw]:
    """The student's own numbers of an entry, as the artifact holds them, or else the checkpoint *student*.

    Raises:
        ArtifactError: they are nowhere.
        SourceError: *student* is no whole checkpoint of safetensors.
    """
    if artifact.original:
        return lambda entry: artifact.original[entry.tensor].read()
    if student is None:
        raise ArtifactError(
            f"{artifact.folder}: does not hold the student's own numbers. Name the student's folder with --student."
        )
    require(artifact, student, State.CLEAN)
    places = stored_tensors(Checkpoint(student))
    return lambda entry: taken(places[entry.tensor].read(), entry.along, entry.moved)


def refuse_out(model: Path, out: Path) -> None:
    """Go on only where a changed copy of *model* may be written to *out*.

    Raises:
        ArtifactError: it lies in *model*.
        HarnessError: it exists.
    """
    if out.resolve().is_relative_to(model.resolve()):
        raise ArtifactError(f"{out}: lies in {model}, which is never changed. Choose another --out.")
    refuse_existing(out)


def _first_foreign(artifact: Artifact, tensors: Mapping[str, Stored]) -> str:
    """What first tells the model from the student, as far as headers know it."""
    manifest = artifact.manifest
    expected = {entry.tensor: entry for entry in manifest.entries}
    for name in sorted((expected.keys() | manifest.rest.keys()) ^ tensors.keys()):
        return f"it has a tensor {name!r} more" if name in tensors else f"it has no tensor {name!r}"
    for name, entry in expected.items():
        found = tensors[name]
        if (found.shape, found.dtype) != (entry.shape, entry.dtype):
            return f"{name} is {found.dtype} {list(found.shape)}, not {entry.dtype} {list(entry.shape)}"
    return ""


def beside(artifact: Artifact, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Files of *checkpoint* that decide its answers, are no weights, and are not as they were."""
    known = {name: sha256 for name, sha256 in artifact.manifest.student.files.items() if not _is_weights(Path(name))}
    there = {path.name for pattern in BESIDE for path in checkpoint.folder.glob(pattern) if not _is_weights(path)}
    return tuple(
        name
        for name in sorted(known.keys() | there)
        if name not in there or known.get(name) != sha256_file(checkpoint.folder / name)
    )


def _is_weights(file: Path) -> bool:
    """Whether a file holds weights, or only says where they lie."""
    return any(file.match(pattern) for pattern in (*WEIGHTS, INDEX))


def _rewritten(
    artifact: Artifact,
    model: Path,
    out: Path,
    numbers: Callable[[Entry], Raw],
    expected: Callable[[Entry], str],
    becomes: State,
    *,
    link: bool,
) -> tuple[str, ...]:
    refuse_out(model, out)
    checkpoint = Checkpoint(model)
    places = stored_tensors(checkpoint)
    touched = {places[entry.tensor].file for entry in artifact.manifest.entries}
    own = {*checkpoint.shards, model / "model.safetensors.index.json"}
    files = sorted(path for path in model.rglob("*") if path.is_file())
    left_out = [file for file in files if _is_weights(file) and file not in own]
    with whole_folder(out, replace=False) as folder:
        for file in (file for file in files if file not in left_out):
            target = folder / file.relative_to(model)
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(file, target, link=link and file in checkpoint.shards and file not in touched)
        for entry in artifact.manifest.entries:
            place = places[entry.tensor]
            _write(place, entry, numbers(entry), expected(entry), folder / place.file.name)
        for file in touched:
            _flush(folder / file.name)
        if (found := verify(artifact, folder)).state is not becomes:
            raise ArtifactError(
                f"{out}: was not written as it should be ({found.foreign or found.state}). Check the disk."
            )
    return tuple(str(file.relative_to(model)) for file in left_out)


def _write(place: Stored, entry: Entry, numbers: Raw, expected: str, file: Path) -> None:
    """Put *numbers* in; a function of its own, so that one tensor is gone before the next is read."""
    bits = with_channels(place.read(), entry.along, entry.moved, numbers) if entry.moved else numbers
    if digest(bits) != expected:
        raise ArtifactError(
            f"{entry.tensor}: would not become what the manifest says. The artifact does not agree with itself; "
            "get it again."
        )
    place.write(bits, file)


def _copy(file: Path, target: Path, *, link: bool) -> None:
    # What lies behind a link of a hub's cache belongs to others, so that is always copied.
    if link and not file.is_symlink():
        with contextlib.suppress(OSError):  # another disk, or one that knows no links
            os.link(file, target)
            return
    shutil.copyfile(file, target)


def _flush(file: Path) -> None:
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())
