"""Choose the files of a model's folder that a release needs. Every other file stays behind, and is named."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from fnmatch import fnmatch
from pathlib import Path

from safety_harness.errors import ArtifactError, masked

# A folder may hold a secret under any name. So what is released is listed, and not what is left out.
# Read by programs next to the weights.
READ = (
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json", "params.json", "tokenizer.json", "tokenizer_config.json", "tekken.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "vocab.bpe", "merges.txt",
    "chat_template.json", "*.jinja", "*.model", "*.model.v*", "*.tiktoken",
)  # fmt: skip
# Read by people.
DOCUMENTS = (
    "*.md", "*.txt", "licen[cs]e*", "notice*", "copying*", "*.png", "*.jpg", "*.jpeg", "*.svg", "*.gif", "*.webp",
)  # fmt: skip
# No documents, whatever they end in.
_SECRETS = ("*token*", "*secret*", "*passw*", "*credential*", "*api*key*", "*private*", "*keys.*", "*key.*")
CARRIED = "safety-patch"
"""The folder of a released model with what says which patch is in it. No copy of the model takes it over."""
# Folders of a training run, and files that a folder with a model of its own holds.
_TRAINING = ("checkpoint-*", "global_step*", "wandb", "runs", "mlruns", "logs", "__pycache__")
_MODELS = ("config.json", "adapter_config.json", "trainer_state.json")
# Nobody writes a longer document by hand, and none holds its secret further behind.
_LONGEST_READ = 1 << 20


def split_files(model: Path, weights: Collection[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files of the folder *model* that are released, and the files and folders that are left out.

    Released are its *weights*, what programs read next to them, and documents. Hidden files stay behind, and so do
    links that lead out of the folder, except those of a hub's cache and of files that a program reads.

    Raises:
        ArtifactError: a config holds a credential.
    """
    released: list[Path] = []
    left_out: list[Path] = []
    for path in _entries(model):
        (released if path in weights or _is_released(path, model) else left_out).append(path)
    for path in released:
        if fnmatch(path.name, "*config.json") and _holds_secret(path):
            raise ArtifactError(f"{path}: holds a credential, in an address or as a token. Remove it first.")
    return sorted(released), sorted(left_out)


def _entries(model: Path) -> Iterator[Path]:
    """Yield every file of *model*, and instead of its files each folder that stays behind as a whole."""
    for parent, folders, names in os.walk(model):
        at = Path(parent)
        for name in folders[:]:
            folder = at / name
            a_model = any((folder / one).exists() for one in _MODELS)
            if name.startswith(".") or name == CARRIED or folder.is_symlink() or a_model or _is_one_of(name, _TRAINING):
                folders.remove(name)
                yield folder
        yield from (at / name for name in names)


def _is_released(path: Path, model: Path) -> bool:
    inside, read = path.relative_to(model), _is_one_of(path.name, READ)
    if not path.is_file() or not is_needed(inside) or (not read and _holds_secret(path)):
        return False
    target, home = path.resolve(), model.resolve()
    if target.is_relative_to(home):
        return target == home / inside or is_needed(target.relative_to(home))
    # In a hub's cache every file of a snapshot leads to a blob.
    blobs = home.parent.name == "snapshots" and target.is_relative_to(home.parent.parent / "blobs")
    return blobs or read


def is_needed(inside: Path) -> bool:
    """Return whether a release needs the file *inside* of a model's folder, by its name alone."""
    name = inside.name.lower()
    if any(part.startswith(".") for part in inside.parts):
        return False
    if _is_one_of(name, READ):  # loaders read the top of a folder, and templates below it
        return len(inside.parts) == 1 or name.endswith(".jinja")
    return _is_one_of(name, DOCUMENTS) and not _is_one_of(name, _SECRETS)


def _is_one_of(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatch(name.lower(), pattern) for pattern in patterns)


def _holds_secret(path: Path) -> bool:
    with path.open("rb") as stream:
        text = stream.read(_LONGEST_READ).decode(errors="replace")
    return masked(text) != text
