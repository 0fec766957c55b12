"""Say which files of a model folder hold its weights, and refuse a folder that programs read differently."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safety_harness.errors import SourceError, remark
from safety_harness.weights.header import READER
from safety_harness.weights.names import is_computed

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# Mistral's repositories hold the weights a second time, for its own programs.
OTHER_COPIES = "consolidated*.safetensors"
# The second one counts where a folder holds both: transformers reads it last.
TEMPLATES = ("chat_template.jinja", "additional_chat_templates/default.jinja")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def weight_files(folder: Path, config: Mapping[str, Any]) -> tuple[list[Path], Mapping[str, str] | None]:
    """Return the safetensors files of a model folder, and which of them holds a tensor by its index if it has one.

    Raises:
        SourceError: there are no safetensors, a shard is missing, or programs would read different files.
    """
    whole, index = folder / WHOLE, folder / INDEX
    home = _indexed(index) if index.exists() else None
    files = sorted(folder / name for name in set(home.values())) if home is not None else [whole]
    if home is not None and whole.exists() and files != [whole]:
        raise SourceError(
            f"{folder}: says two things: {WHOLE} holds the weights, and {INDEX} names {files[0].name}. Programs differ "
            "in which they read. Remove the one that is out of date."
        )
    present = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("."))
    if not present and (pickles := [path for pattern in PICKLES for path in folder.glob(pattern)]):
        raise SourceError(
            f"{pickles[0]}: a pickle checkpoint can run code when it is loaded, so it is refused. "
            "Get the safetensors version, or convert it where you trust it."
        )
    if not present:
        raise SourceError(f"{folder}: holds no .safetensors file.")
    _refuse_further_weights(folder, config, index if home is not None else whole, files, present)
    if missing := [file for file in files if not file.exists()]:
        raise SourceError(f"{missing[0]}: missing, though the index names it. Get the whole checkpoint.")
    if copies := [file for file in present if file not in files]:
        remark(
            f"{copies[0]}: is passed over. It holds the weights for Mistral's own programs, and what is measured here "
            f"is {files[0].name}. A program that reads {copies[0].name} may answer otherwise."
        )
    return files, home


def _refuse_further_weights(
    folder: Path, config: Mapping[str, Any], read: Path, files: Sequence[Path], present: Sequence[Path]
) -> None:
    """Check that nothing in *folder* names or holds other weights than *files*, which are found through *read*."""
    if (folder / "adapter_config.json").exists():
        raise SourceError(
            f"{folder}: says two things: whole weights, and an adapter on them (adapter_config.json), which some "
            "programs apply and others do not. Move the adapter into a folder of its own, and name it in `adapters`."
        )
    named = config.get("transformers_weights")
    if named not in (None, read.name, *(file.name for file in files if len(files) == 1)):
        raise SourceError(
            f"{folder}: says two things: config.json names the weights {named!r} (`transformers_weights`), and other "
            f"programs read {read.name}. Remove the key, or the file that is out of date."
        )
    if read.name == WHOLE and not read.exists():
        raise SourceError(
            f"{folder}: holds {present[0].name}, and neither {WHOLE} nor {INDEX}, which say what counts. Rename the "
            f"one file to {WHOLE}, or get the index."
        )
    if further := [file for file in present if file not in files and not file.match(OTHER_COPIES)]:
        raise SourceError(
            f"{folder}: says two things: the weights are in {files[0].name}{' …' if len(files) > 1 else ''} (by "
            f"{read.name}), and {further[0].name} holds others, which some programs read. Remove one of them."
        )


def check_index(folder: Path, home: Mapping[str, str], held: Mapping[str, Path]) -> None:
    """Check that an index puts every tensor into the file that *held* says it lies in.

    A name that is in no file may be of a tied head, which the hub's converter leaves in the index. Whether a tensor is
    missing is seen by whoever needs it.

    Raises:
        SourceError: index and files differ. The message names the first tensor.
    """
    for name, found in sorted(held.items()):
        indexed = home.get(name)
        if found.name == indexed or is_computed(name):
            continue
        says = f"lies in {indexed}" if indexed else "is in no file"
        raise SourceError(
            f"{folder}: says two things: {INDEX} says that {name[:80]!r} {says}, and it lies in {found.name}. Programs "
            "differ in which they follow. Save the model again, or get the files and the index of one save."
        )


def check_templates(folder: Path) -> None:
    """Check that a folder holds one chat template, or the same one several times.

    Raises:
        SourceError: two of the places from which programs take the chat template hold different ones.
    """
    files = [file for name in TEMPLATES if (file := folder / name).is_file()]
    found = {file: file.read_text("utf-8", errors="replace") for file in files}
    settings = folder / "tokenizer_config.json"
    if found and settings.is_file() and (named := _named_default(settings)) is not None:
        found[settings] = named
    for one, other in itertools.pairwise(found):
        if _as_jinja_reads(found[one]) != _as_jinja_reads(found[other]):
            raise SourceError(
                f"{folder}: says two things: {one.relative_to(folder)} and {other.relative_to(folder)} hold different "
                "chat templates, and programs differ in which they use. Remove the one that is out of date."
            )


def _as_jinja_reads(template: str) -> str:
    """Return a template with the ends of lines that Jinja makes of all ends of lines."""
    return template.replace("\r\n", "\n").replace("\r", "\n").strip()


def _named_default(settings: Path) -> str | None:
    """Return the chat template that tokenizer_config.json holds, of several the default one, or None."""
    held = READER.table(settings).get("chat_template")
    if isinstance(held, list):
        named = (each for each in held if isinstance(each, dict) and each.get("name") == "default")
        held = next((each.get("template") for each in named), None)
    return held if isinstance(held, str) else None


def _indexed(index: Path) -> Mapping[str, str]:
    """Return the file of each tensor, as an index names it."""
    home = READER.table(index).get("weight_map")
    if not isinstance(home, dict) or not home or not all(isinstance(name, str) for name in home.values()):
        raise SourceError(f"{index}: has no table `weight_map` of tensor to file. Get the file again.")
    if outside := sorted(name for name in set(home.values()) if Path(name).name != name):
        raise SourceError(
            f"{index}: names a file in another place, {outside[0][:80]!r}. Shards lie next to their index."
        )
    if long := sorted(name for name in set(home.values()) if len(name.encode()) > 255 or not name.isprintable()):
        raise SourceError(f"{index}: no file can have the name {long[0][:80]!r}. Get the file again.")
    return home
