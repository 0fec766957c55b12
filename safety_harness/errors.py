"""Every error that a user may meet, as one small tree.

HarnessError
├── ConfigError      an option, a threshold or a registry file is wrong
├── DataError        a prompt or text file is missing, unreadable, empty or has duplicates
├── SourceError      weights or data cannot be had: missing, truncated, wrong hash, unsafe format
├── LineageError     teacher and student do not share an architecture, shapes or ancestry
├── UnitError        an architecture or a role is not known, or matches no tensor
├── ArtifactError    a patch artifact is damaged, or the model before it is not the one that it was made for
├── NotFinite        a NaN or an infinity came out of a model
└── VoidProbe        too many answers could not be scored: the probe proves nothing

Each message says what is wrong, with which file or value, and what to do next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class HarnessError(Exception):
    """Base of all errors that are the user's to resolve; shown without a traceback."""


class ConfigError(HarnessError):
    """An option, a threshold or a registry entry is wrong."""


class DataError(HarnessError):
    """A prompt or text file cannot be used."""


class SourceError(HarnessError):
    """A weight or data file cannot be obtained, or is not what was asked for."""


class LineageError(HarnessError):
    """Teacher and student are not comparable, so a transplant would be meaningless."""


class UnitError(HarnessError):
    """No unit answers the request: unknown architecture, role or layer."""


class ArtifactError(HarnessError):
    """A patch artifact is damaged, or does not belong to the model that it is put to."""


class NotFinite(HarnessError):
    """A model's numbers ran out of their range: a NaN or an infinity came out."""


class VoidProbe(HarnessError):
    """A probe with too many unscored answers: neither true nor false."""


def first_fault(error: ValidationError, whole: str = "the file") -> str:
    """Return ``FIELD: what is wrong`` for the first fault of *error*, with the value given unless that is a table.

    A fault that lies in no field, as of text that is no JSON, is one of the *whole*.
    """
    fault = error.errors()[0]
    field = ".".join(map(str, fault["loc"])) or whole
    given = (
        ""
        if fault["type"] == "json_invalid" or isinstance(fault["input"], dict)
        else f" (given: {fault['input']!r:.80})"
    )
    return f"{field}: {fault['msg']}{given}"


def missing_extra(package: str, extra: str, what: str) -> HarnessError:
    """Return the error for an optional package that is not installed; *what* begins the sentence."""
    return HarnessError(f"{what} needs {package}, which is not installed: pip install 'safety-harness[{extra}]'")
