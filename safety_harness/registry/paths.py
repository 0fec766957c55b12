"""Types of a registry's values that are paths: relative to its file, and such that a file may have them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo


def _in_registry(path: Path, info: ValidationInfo) -> Path:
    """Return *path* relative to the registry file, whose folder is the context of a validation."""
    _fit(str(path))
    if info.context is None:
        return path
    try:
        return Path(info.context / path.expanduser())
    except RuntimeError:  # of a user that this machine does not know; pydantic reports a ValueError only
        raise ValueError("no home folder is known for `~` here") from None


def _fit(path: str) -> str:
    """Return a *path* that a file may have."""
    if "\0" in path or len(path) > 4_000 or any(len(part.encode(errors="replace")) > 255 for part in path.split("/")):
        raise ValueError("no file can have this name")
    return path


def _not_empty(path: Any) -> Any:
    if path == "":  # pathlib takes it for the folder of the registry
        raise ValueError("is empty")
    return path


Text = Annotated[str, Field(min_length=1)]
RegistryPath = Annotated[Path, BeforeValidator(_not_empty), AfterValidator(_in_registry)]
InnerPath = Annotated[Text, AfterValidator(_fit)]
