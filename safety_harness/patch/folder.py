"""An artifact on disk: a folder with a manifest, the numbers that move, their checksums and a card.

```
manifest.json          what moves, whose it is, how it was found, what the gate said (JSON Schema: docs)
patch.safetensors      the new numbers, by the student's names on disk, in its dtype
original.safetensors   the student's own numbers in their place, on request: a revert then needs nothing else
README.md              the same for people: a model card
SHA256SUMS             as `sha256sum --check` reads it
```
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from safety_harness.errors import ArtifactError, SourceError
from safety_harness.files import sha256_file
from safety_harness.patch.manifest import Entry, Manifest, read_manifest
from safety_harness.patch.tensor_bytes import Raw, Stored, is_finite, stored_in

MANIFEST, PATCH, ORIGINAL, CARD, SUMS = (
    "manifest.json",
    "patch.safetensors",
    "original.safetensors",
    "README.md",
    "SHA256SUMS",
)

# Of the five files that it lists.
_LONGEST = 4096
_SUM = re.compile(r"([0-9a-f]{64}) [ *]([\w.-]{1,64})")


@dataclass(frozen=True)
class Artifact:
    """A patch that was read from its folder, whole and unchanged since it was written."""

    folder: Path
    manifest: Manifest
    patch: Mapping[str, Stored]
    original: Mapping[str, Stored]
    """The student's own numbers in their place; empty where only the student has them."""

    def new(self, entry: Entry) -> Raw:
        """The numbers that *entry* puts into the student."""
        return self.patch[entry.tensor].read()


def open_artifact(folder: Path) -> Artifact:
    """Read the artifact in *folder*, and check every file of it that matters.

    Raises:
        ArtifactError: a file is missing, is not what SHA256SUMS says, or does not agree with the manifest, or a number
            that is to move is none.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder. Name the one that `safety-harness search --out` wrote.")
    listed = _sums(folder / SUMS)
    original = [ORIGINAL] if ORIGINAL in listed or (folder / ORIGINAL).exists() else []
    for name in (MANIFEST, PATCH, *original):
        if not (folder / name).is_file():
            raise ArtifactError(f"{folder / name}: missing. Get the artifact again.")
        if listed.get(name) != sha256_file(folder / name):
            raise ArtifactError(f"{folder / name}: is not the file that {SUMS} was made of. Get the artifact again.")
    manifest = read_manifest(folder / MANIFEST)
    patch = _tensors(folder / PATCH, manifest)
    for entry in manifest.entries:
        if not is_finite(patch[entry.tensor].read(), entry.dtype):
            raise ArtifactError(f"{folder / PATCH}: {entry.tensor} holds a NaN or an infinity. Do not use it.")
    return Artifact(folder, manifest, patch, _tensors(folder / ORIGINAL, manifest) if original else {})


def sums(folder: Path) -> str:
    """The text of SHA256SUMS for all other files of *folder*."""
    return "".join(f"{sha256_file(file)}  {file.name}\n" for file in sorted(folder.iterdir()) if file.name != SUMS)


def _sums(file: Path) -> Mapping[str, str]:
    try:
        with file.open("rb") as stream:
            lines = stream.read(_LONGEST).decode("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{file}: cannot be read ({error}). Get the artifact again.") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        parts = _SUM.fullmatch(line)
        if parts is None or parts[2] in found:
            raise ArtifactError(f"{file}, line {number}: not one checksum and a file's name. Get the artifact again.")
        found[parts[2]] = parts[1]
    return found


def _tensors(file: Path, manifest: Manifest) -> Mapping[str, Stored]:
    """The tensors of *file*: those of the manifest, and no others."""
    try:
        with safe_open(file, framework="np"):  # checks the header, and that the file is as long as it says
            found = {stored.name: stored for stored in stored_in(file)}
    except (SafetensorError, SourceError, OSError) as error:
        raise ArtifactError(f"{file}: not a whole safetensors file ({error}). Get the artifact again.") from error
    expected = {entry.tensor: (entry.patch_shape, entry.dtype) for entry in manifest.entries}
    held = {name: (stored.shape, stored.dtype) for name, stored in found.items()}
    for name in sorted(expected.keys() | held.keys()):
        if expected.get(name) != held.get(name):
            raise ArtifactError(
                f"{file}: holds {_said(held.get(name))} for {name!r}, and the manifest {_said(expected.get(name))}. "
                "Get the artifact again."
            )
    return found


def _said(tensor: tuple[tuple[int, ...], str] | None) -> str:
    return "nothing" if tensor is None else f"{tensor[1]} {list(tensor[0])}"
