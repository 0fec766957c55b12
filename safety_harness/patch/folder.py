"""Read an artifact: a folder with a manifest, the numbers that move, their checksums and a card.

```
manifest.json          what moves, whose weights, how it was found, what the gate measured (JSON Schema: docs)
patch.safetensors      the new numbers, by the student's names on disk, in its dtype
original.safetensors   on request the student's own numbers that were replaced, so that a revert needs nothing else
README.md              a model card for people, with its metrics as a hub reads them
ml-bom.cdx.json        what the patched model is made of and what was measured of it (CycloneDX ML-BOM)
SHA256SUMS             checksums of the other files, for `sha256sum --check`
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
from safety_harness.reading import Reader
from safety_harness.weights.header import require_header

MANIFEST, PATCH, ORIGINAL, CARD, BOM, SUMS = (
    "manifest.json",
    "patch.safetensors",
    "original.safetensors",
    "README.md",
    "ml-bom.cdx.json",
    "SHA256SUMS",
)

_FOLDER = Reader(ArtifactError, missing="no such folder. Name the one that `safety-harness patch --out` wrote.")
# It lists at most six files.
_SUMS = Reader(
    ArtifactError,
    missing="missing, so its folder is no patch, or not a whole one. Name the one that `safety-harness patch` wrote.",
    advice="Get the artifact again.",
    at_most=4096,
)
_SUM = re.compile(r"([0-9a-f]{64}) [ *]([\w.-]{1,64})", re.ASCII)


@dataclass(frozen=True)
class Artifact:
    """A patch read from its folder, whole and unchanged since it was written."""

    folder: Path
    manifest: Manifest
    patch: Mapping[str, Stored]
    original: Mapping[str, Stored]
    """The student's own numbers that were replaced; empty if the artifact does not hold them."""

    def new(self, entry: Entry) -> Raw:
        """Read the numbers that *entry* puts into the student."""
        return self.patch[entry.tensor].read()


def open_artifact(folder: Path) -> Artifact:
    """Read the artifact in *folder*, and check its manifest and tensors against SHA256SUMS and each other.

    Raises:
        ArtifactError: a file is missing, or differs from SHA256SUMS or the manifest, or a number that moves is a NaN
            or an infinity.
    """
    _FOLDER.require_folder(folder)
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
    """Return the text of SHA256SUMS for all other files of *folder*."""
    return "".join(f"{sha256_file(file)}  {file.name}\n" for file in sorted(folder.iterdir()) if file.name != SUMS)


def documents(folder: Path) -> list[Path]:
    """Return the files that say what a patch is: manifest, card and ML-BOM, as far as they are as they were written."""
    listed = _sums(folder / SUMS)
    files = (folder / name for name in (MANIFEST, CARD, BOM) if name in listed)
    return [file for file in files if file.is_file() and sha256_file(file) == listed[file.name]]


def _sums(file: Path) -> Mapping[str, str]:
    """Read SHA256SUMS: name of a file -> its digest."""
    sums_by_name: dict[str, str] = {}
    for number, line in enumerate(_SUMS.text(file).splitlines(), 1):
        parts = _SUM.fullmatch(line)
        if parts is None or parts[2] in sums_by_name:
            raise ArtifactError(f"{file}, line {number}: not one checksum and a file's name. Get the artifact again.")
        sums_by_name[parts[2]] = parts[1]
    return sums_by_name


def _tensors(file: Path, manifest: Manifest) -> Mapping[str, Stored]:
    """Read where the tensors of *file* are, and check that they are those of the manifest and no others."""
    try:
        require_header(file)
        with safe_open(file, framework="np"):  # checks the header, and that the file is as long as it says
            tensors = {stored.name: stored for stored in stored_in(file)}
    except (SafetensorError, SourceError, OSError) as error:
        raise ArtifactError(f"{file}: not a whole safetensors file ({error}). Get the artifact again.") from error
    expected = {entry.tensor: (entry.patch_shape, entry.dtype) for entry in manifest.entries}
    held = {name: (stored.shape, stored.dtype) for name, stored in tensors.items()}
    for name in sorted(expected.keys() | held.keys()):
        if expected.get(name) != held.get(name):
            raise ArtifactError(
                f"{file}: holds {_shown(held.get(name))} for {name!r}, and the manifest {_shown(expected.get(name))}. "
                "Get the artifact again."
            )
    return tensors


def _shown(tensor: tuple[tuple[int, ...], str] | None) -> str:
    return "nothing" if tensor is None else f"{tensor[1]} {list(tensor[0])}"
