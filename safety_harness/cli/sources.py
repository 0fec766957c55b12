"""Look at a model that ``safety-harness init`` is told of: where it is, what its headers say, whether it will do."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from safety_harness.errors import ConfigError, HarnessError, LineageError, SourceError, first_fault
from safety_harness.evaluation.estimate import Sketch, sketch
from safety_harness.registry.fetch import HUB_SECONDS
from safety_harness.registry.schema import ModelSpec
from safety_harness.registry.server import Served
from safety_harness.served.client import unreachable
from safety_harness.weights.adapter import CONFIG as ADAPTER
from safety_harness.weights.adapter import require_adapter
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint, check_shapes
from safety_harness.weights.header import READER

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Look:
    """A model as a registry names it, and what its headers say; None where they are not known yet, as ``note`` says."""

    table: Mapping[str, Any]
    sketch: Sketch | None
    note: str = ""

    def spec(self, folder: Path) -> ModelSpec:
        """Return the source that a registry in *folder* names."""
        return ModelSpec.model_validate(self.table, context=folder)

    def __str__(self) -> str:
        if self.sketch is None:
            return self.note
        size = f"{self.sketch.parameters / 1e6:,.1f} M parameters, {size_text(self.sketch.disk)}"
        return f"{self.sketch.config.get('model_type')}, {size}{f'; {self.note}' if self.note else ''}"


def size_text(size: int) -> str:
    """Return a number of bytes in MiB, or from one GiB on in GiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{math.ceil(size / 2**20)} MiB"


def look(name: str, folder: Path) -> Look:
    """Return what is known of the model *name*: a folder, a GGUF file, an adapter, or a name of the hub.

    Args:
        name: as the user typed it, relative to the working folder.
        folder: where the registry will lie, to which its paths are relative.

    Raises:
        HarnessError: it is none of these, or a model that cannot be gated.
    """
    place = place_of(name)
    if place.is_dir():
        is_adapter = (place / ADAPTER).exists() and not (place / "config.json").exists()
        return _of_adapter(place, folder) if is_adapter else _of_folder(place, folder)
    if place.is_file() and place.suffix == ".gguf":
        table = {"gguf": written(place, folder)}
        return Look(table, None, "a GGUF file; it is dequantised when it is first used")
    if place.exists():
        raise SourceError(f"{name}: neither a model folder nor a .gguf file. Name the folder that holds config.json.")
    if HUB_NAME.fullmatch(name) and not name.startswith((".", "~")):
        seen = _of_hub({"hf": name}, folder)
        if seen.sketch or not place.parent.is_dir():
            return seen
        # Neither of the two is seen, and only one of them is likely.
        raise SourceError(f"{name}: no such folder, and as a name of the hub it is out of reach. Check the path.")
    raise SourceError(f"{name}: no such folder or .gguf file, and no name on a hub (owner/name). Check the path.")


def is_address(name: str) -> bool:
    """Return whether a student is named by the address of a server."""
    return name.startswith(("http://", "https://"))


def look_at_server(url: str, model: str, key_env: str | None) -> Look:
    """Return a student that a server answers for. Whether something answers there is said, and is no error.

    Raises:
        ConfigError: this is no address, or the key itself is given in place of the variable that holds it.
    """
    table = {"url": url, "model": model, **({"key_env": key_env} if key_env else {})}
    try:
        server = Served.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"--student, --model, --key-env: {first_fault(error)}") from error
    why = unreachable(server)
    return Look({"served": {**table, "url": server.url}}, None, why or f"{server} answers")


def check_pair(student: Look, teacher: Look, folder: Path) -> None:
    """Check by their headers that the teacher's weights fit into the student, where both are on this machine.

    Raises:
        LineageError: they are one model, or differ in architecture or size.
        UnitError: the architecture is not known.
    """
    if student.table == teacher.table:
        raise LineageError("Student and teacher are one model. The teacher is another one, which refuses.")
    if student.sketch is None or teacher.sketch is None:
        return
    types = [one.sketch.config.get("model_type") for one in (student, teacher) if one.sketch]
    units = enumerate_units(student.sketch.config, student.sketch.shapes)
    if "path" in student.table and "path" in teacher.table:
        paths = [one.spec(folder).path for one in (student, teacher)]
        own, of_teacher = (Checkpoint(path) for path in paths if path)
        check_shapes(own, of_teacher, units)
    elif types[0] != types[1]:
        raise LineageError(
            f"The student is a {types[0]} model and the teacher a {types[1]} model. Choose a teacher of the student's "
            "architecture."
        )
    else:
        for name in (name for unit in units for name in unit.tensors):
            shape, other = student.sketch.shapes[name], teacher.sketch.shapes.get(name)
            if shape != other:
                raise LineageError(
                    f"{name}: the student has shape {shape}, the teacher {other or 'no such tensor'}. Choose a teacher "
                    "of the student's size."
                )


def place_of(name: str) -> Path:
    """Return the path that a user typed.

    Raises:
        SourceError: it begins with the home folder of a user that this machine does not know.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise SourceError(f"{name}: no home folder is known for this name. Write the whole path.") from error


def written(place: Path, folder: Path) -> str:
    """Return how a registry in *folder* names *place*: relative to it where it lies below, so that both can move."""
    whole, root = place.resolve(), folder.resolve()
    text = whole.relative_to(root).as_posix() if whole.is_relative_to(root) else str(whole)
    if not text.isprintable():
        raise ConfigError(f"{text!a}: a path with a control character cannot be written to a registry. Rename it.")
    return text


def _of_adapter(place: Path, folder: Path) -> Look:
    """Look at an adapter, and at the model that its config names."""
    require_adapter(place)
    base = READER.table(place / ADAPTER).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise SourceError(f"{place / ADAPTER}: names no base model (base_model_name_or_path). Name it there.")
    if (place_of(base) / ADAPTER).exists():
        raise SourceError(f"{place}: an adapter on another adapter ({base}). Merge one of them first.")
    try:
        on = look(base, folder)
    except HarnessError as error:
        raise SourceError(f"{place}: an adapter whose base cannot be used. {error}") from error
    return Look({**on.table, "adapters": [written(place, folder)]}, on.sketch, f"a LoRA adapter on {base}")


def _of_folder(place: Path, folder: Path) -> Look:
    """Look at the folder of a whole model."""
    table = {"path": written(place, folder)}
    return Look(table, sketch(ModelSpec.model_validate(table, context=folder)))


def _of_hub(table: dict[str, Any], folder: Path) -> Look:
    """Look at a model of the hub. Its revision is pinned where the hub is in reach."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        table["revision"] = str(HfApi().model_info(table["hf"], timeout=HUB_SECONDS).sha)
    except GatedRepoError as error:
        raise SourceError(
            f"{table['hf']}: its owner gives access on request. Ask there, then `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise SourceError(
            f"{table['hf']}: the hub knows no such model, and there is no such folder here. Check the name; a private "
            "one needs a token (`hf auth login`)."
        ) from error
    except Exception:  # the client lets the errors of its transports through, which share no base
        note = "the hub is not in reach: no revision is pinned, and nothing was looked at"
        try:
            return Look(table, sketch(ModelSpec.model_validate(table, context=folder)), note)
        except HarnessError:
            return Look(table, None, note)
    return Look(table, sketch(ModelSpec.model_validate(table, context=folder)))


if __name__ == "__main__":  # without a word it would look as if all were well
    raise SystemExit("These are parts of one command: python -m safety_harness --help")
