"""Put a patch into a checkpoint on disk, verify whether it is in there, and take it out again, byte for byte."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from safety_harness.errors import ArtifactError
from safety_harness.files import refuse_existing, sha256_file, whole_folder
from safety_harness.patch.folder import Artifact, documents
from safety_harness.patch.manifest import Entry
from safety_harness.patch.release import CARRIED, is_needed, split_files
from safety_harness.patch.tensor_bytes import Raw, Stored, digest, stored_tensors, taken, with_channels
from safety_harness.weights.checkpoint import PICKLES, Checkpoint, companions

# Files that may hold a second copy of a model's weights, in any format, and the files that index weights.
WEIGHT_FILES = (*PICKLES, "*.safetensors", "*.gguf", "*.h5", "*.msgpack", "*.ot", "*.onnx", "*.onnx_data", "*.tflite")
INDEX_FILES = "*.index.json"


class State(StrEnum):
    """How a patch relates to a model: not in it, in it, partly in it, or made for another model."""

    CLEAN = "clean"
    APPLIED = "applied"
    PARTLY = "partly applied"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class Verified:
    """The result of a verification.

    ``foreign`` says where a foreign model first differs. ``unapplied`` names the tensors that do not hold the patch.
    ``beside`` names files other than weights (configs, tokenizer, chat template) that are missing, changed or new since
    the gate's evidence was measured.
    """

    state: State
    foreign: str = ""
    unapplied: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


def verify(artifact: Artifact, model: Path) -> Verified:
    """Compare every tensor of the checkpoint in *model* with the artifact, with one tensor in memory at a time.

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
        sha256 = digest(tensors[entry.tensor].read())
        if sha256 == entry.before != entry.after:
            unapplied.append(entry.tensor)
        elif sha256 != entry.after:
            return Verified(State.FOREIGN, f"{entry.tensor} has sha256 {sha256}, before patching {entry.before}")
    for name, expected in manifest.rest.items():
        if tensors[name].fingerprint != expected:
            return Verified(State.FOREIGN, f"{name} has other numbers, or another shape or dtype")
    changing = sum(entry.before != entry.after for entry in manifest.entries)
    state = State.APPLIED if not unapplied else State.CLEAN if len(unapplied) == changing else State.PARTLY
    return Verified(state, unapplied=tuple(unapplied), beside=beside(artifact, checkpoint))


def require(artifact: Artifact, model: Path, *states: State) -> None:
    """Check that the patch relates to *model* as one of *states*.

    Raises:
        ArtifactError: it relates otherwise. The message says how.
        SourceError: *model* is no whole checkpoint of safetensors.
    """
    verified = verify(artifact, model)
    if verified.state not in states:
        unapplied = verified.unapplied
        missing = f"{unapplied[0]} and {len(unapplied) - 1} others" if unapplied else ""
        why = {
            State.FOREIGN: f"is not the model that the patch was made for: {verified.foreign}",
            State.APPLIED: "holds this patch already",
            State.PARTLY: f"holds a part of this patch, but not {missing}. Revert it first",
            State.CLEAN: "does not hold this patch",
        }[verified.state]
        raise ArtifactError(f"{model}: {why}.")


def apply(artifact: Artifact, model: Path, out: Path, *, link: bool = False) -> tuple[str, ...]:
    """Write the checkpoint in *model* with the patch in it to the new folder *out*.

    A shard that the patch does not touch is copied, or with *link* hard-linked. In a copy of every other shard the
    patched tensors are overwritten. The result is read back and compared, and *out* exists whole or not at all. Its
    folder ``safety-patch`` carries the patch's manifest, card and ML-BOM.

    Returns:
        The files and folders that were left out: second, unpatched copies of the weights, and what a release does not
        need (:mod:`safety_harness.patch.release`).

    Raises:
        ArtifactError: the model is not the student that the patch was made for, or holds the patch already.
        SourceError: *model* is no whole checkpoint of safetensors.
        HarnessError: *out* exists or lies in *model*, or the disk is full or may not be written to.
    """
    require(artifact, model, State.CLEAN)
    carried = documents(artifact.folder)
    after = State.APPLIED
    return _rewritten(artifact, model, out, artifact.new, lambda entry: entry.after, after, link=link, carried=carried)


def revert(
    artifact: Artifact, model: Path, out: Path, student: Path | None = None, *, link: bool = False
) -> tuple[str, ...]:
    """Write the patched checkpoint in *model* without its patch to the new folder *out*, as :func:`apply` writes.

    The student's own numbers come from the artifact, or from the checkpoint *student* if the artifact holds none.

    Returns:
        The files that were left out, as :func:`apply` returns them.

    Raises:
        ArtifactError: the patch is not in the model, or neither source has the student's own numbers.
        SourceError: *model* or *student* is no whole checkpoint of safetensors.
        HarnessError: *out* exists or lies in *model*, or the disk is full or may not be written to.
    """
    require(artifact, model, State.APPLIED, State.PARTLY)
    originals = own_numbers(artifact, student)
    return _rewritten(artifact, model, out, originals, lambda entry: entry.before, State.CLEAN, link=link)


def own_numbers(artifact: Artifact, student: Path | None) -> Callable[[Entry], Raw]:
    """Return a function that reads the student's own numbers of an entry: from the artifact, or from *student*.

    Raises:
        ArtifactError: the artifact does not hold them, and there is no *student* or it is another one.
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
    """Check that a changed copy of *model* may be written to *out*.

    Raises:
        ArtifactError: *out* lies in *model*.
        HarnessError: *out* exists.
    """
    if out.resolve().is_relative_to(model.resolve()):
        raise ArtifactError(f"{out}: lies in {model}, which is never changed. Choose another --out.")
    refuse_existing(out)


def _first_foreign(artifact: Artifact, tensors: Mapping[str, Stored]) -> str:
    """Return the first difference between the model and the student that their headers show, or an empty text."""
    manifest = artifact.manifest
    expected = {entry.tensor: entry for entry in manifest.entries}
    for name in sorted((expected.keys() | manifest.rest.keys()) ^ tensors.keys()):
        return f"it has a tensor {name!r} more" if name in tensors else f"it has no tensor {name!r}"
    for name, entry in expected.items():
        tensor = tensors[name]
        if (tensor.shape, tensor.dtype) != (entry.shape, entry.dtype):
            return f"{name} is {tensor.dtype} {list(tensor.shape)}, not {entry.dtype} {list(entry.shape)}"
    return ""


def beside(artifact: Artifact, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the files of *checkpoint* that decide its answers, hold no weights, and have changed since the gate."""
    known = {name: sha256 for name, sha256 in artifact.manifest.student.files.items() if not _is_weights(Path(name))}
    folder = checkpoint.folder
    there = {path.relative_to(folder).as_posix() for path in companions(folder) if not _is_weights(path)}
    return tuple(
        name
        for name in sorted(known.keys() | there)
        if (is_needed(Path(name)) if name not in there else known.get(name) != sha256_file(folder / name))
    )


def _is_weights(file: Path) -> bool:
    """Return whether a file holds weights, or says where they are."""
    return any(file.match(pattern) for pattern in (*WEIGHT_FILES, INDEX_FILES))


def _rewritten(
    artifact: Artifact,
    model: Path,
    out: Path,
    numbers: Callable[[Entry], Raw],
    expected: Callable[[Entry], str],
    becomes: State,
    *,
    link: bool,
    carried: Sequence[Path] = (),
) -> tuple[str, ...]:
    """Write *model* with other *numbers* to *out*, and check each tensor's *expected* digest and the state at the end.

    The files *carried* go into a folder of their own.

    Returns:
        The files and folders that were left out.
    """
    refuse_out(model, out)
    checkpoint = Checkpoint(model)
    places = stored_tensors(checkpoint)
    touched = {places[entry.tensor].file for entry in artifact.manifest.entries}
    kept_weights = {*checkpoint.shards, model / "model.safetensors.index.json"}
    released, left_out = split_files(model, kept_weights)
    with whole_folder(out, replace=False) as folder:
        for file in released:
            target = folder / file.relative_to(model)
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(file, target, link=link and file in checkpoint.shards and file not in touched)
        for entry in artifact.manifest.entries:
            place = places[entry.tensor]
            _write(place, entry, numbers(entry), expected(entry), folder / place.file.name)
        for file in touched:
            _flush(folder / file.name)
        for file in carried:
            (folder / CARRIED).mkdir(exist_ok=True)
            _copy(file, folder / CARRIED / file.name, link=False)
        if (verified := verify(artifact, folder)).state is not becomes:
            raise ArtifactError(
                f"{out}: was not written as it should be ({verified.foreign or verified.state}). Check the disk."
            )
    return tuple(str(path.relative_to(model)) for path in left_out)


def _write(place: Stored, entry: Entry, numbers: Raw, expected: str, file: Path) -> None:
    """Write *numbers* into *file*. A function of its own, so that each tensor is freed before the next is read."""
    bits = with_channels(place.read(), entry.along, entry.moved, numbers) if entry.moved else numbers
    if digest(bits) != expected:
        raise ArtifactError(
            f"{entry.tensor}: would not become what the manifest says. The artifact contradicts itself. Get it again."
        )
    place.write(bits, file)


def _copy(file: Path, target: Path, *, link: bool) -> None:
    # A link leads into a hub's cache, whose files other programs use: always copy those.
    if link and not file.is_symlink():
        with contextlib.suppress(OSError):  # another disk, or one without hard links
            os.link(file, target)
            return
    shutil.copyfile(file, target)


def _flush(file: Path) -> None:
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())
