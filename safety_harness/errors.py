"""Every error that a user may meet, as one small tree.

HarnessError
├── ConfigError      an option, a threshold or a registry file is wrong
├── DataError        a prompt or text file is missing, unreadable, empty or has duplicates
├── SourceError      weights or data cannot be obtained: missing, truncated, wrong hash, unsafe format
├── LineageError     teacher and student do not share an architecture, shapes or ancestry
├── UnitError        an architecture or a role is not known, or matches no tensor
├── ArtifactError    a patch artifact is damaged, or was made for another model
├── NotFinite        a model returned a NaN or an infinity
└── VoidProbe        too many answers could not be scored: the probe proves nothing

Each message says what is wrong, with which file or value, and what to do next.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


# What stands before the @ of an address; a value of its query; a header's; tokens of hubs, forges, clouds and models. A
# manual may say `ssh://git@` and `Bearer YOUR_TOKEN`. A path has one of an address' two slashes.
_CREDENTIAL = re.compile(
    r"(?:(?<=://)|(?<=:/)(?!/))(?!git@)[^\s/@\"'<>]+(?=@)"
    r"|(?<=[?&])[\w-]*(?:token|key|secret|passw\w*|signature|credential|auth)=[^\s&\"'<>]+"
    r"|(?<=bearer )(?=\S*\d)[\w.~+/=-]{8,}|(?<=authorization: basic )[\w+/=]{8,}"
    r"|\b(?:hf_|gh[opsu]_)[a-z0-9]{16,}|\b(?:github_pat_|glpat-|xox[abp]-|sk-)(?=[\w-]*\d)[\w-]{20,}"
    r"|\bAKIA[A-Z0-9]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """Return *text* with stars for credentials: in an address, its query or a header, and tokens of known forms."""
    return _CREDENTIAL.sub("***", text)


class HarnessError(Exception):
    """Base of all errors that a user can resolve. They are shown without a traceback, and without credentials."""

    def __str__(self) -> str:
        return masked(super().__str__())


class ConfigError(HarnessError):
    """An option, a threshold or a registry entry is wrong."""


class DataError(HarnessError):
    """A prompt or text file cannot be used."""


class SourceError(HarnessError):
    """A weight or data file cannot be obtained, or is not what was asked for."""


class LineageError(HarnessError):
    """Teacher and student are not comparable, so a transplant would be meaningless."""


class UnitError(HarnessError):
    """No unit matches: unknown architecture, role or layer."""


class ArtifactError(HarnessError):
    """A patch artifact is damaged, or was made for another model."""


class NotFinite(HarnessError):
    """A model returned a NaN or an infinity."""


class VoidProbe(HarnessError):
    """A probe has too many unscored answers to be true or false."""


class Remark(UserWarning):
    """Something that a reader of the report should know. It ends nothing, whatever the filters of warnings are."""


def remark(message: str) -> None:
    """Warn of *message*. A filter that turns warnings into errors, as in many a project, does not apply to it."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", Remark)
        warnings.warn(message, Remark, stacklevel=3)


def first_fault(error: ValidationError, whole: str = "the file") -> str:
    """Return ``FIELD: message (given: VALUE)`` for the first fault of *error*.

    A fault of no field, such as text that is no JSON, is one of the *whole*.
    """
    field, message = field_and_message(error)
    return f"{field or whole}: {message}"


def field_and_message(error: ValidationError) -> tuple[str, str]:
    """Return the field of the first fault of *error*, and what is wrong with the value given.

    The field is empty for a fault of no field. A table is not quoted.
    """
    fault = error.errors()[0]
    given = (
        ""
        if fault["type"] == "json_invalid" or isinstance(fault["input"], dict)
        else f" (given: {fault['input']!r:.80})"
    )
    message = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix("Value error, ")
    field = ".".join(map(str, fault["loc"]))[:300]  # a key may be as long as a file
    return field if field.isprintable() else ascii(field), f"{message}{given}"


def did_you_mean(name: str, known: Iterable[str], whole: Mapping[str, str] | None = None) -> str:
    """Return a question, after a space, that suggests the nearest of the *known* names; nothing where none is near.

    *whole* has the name to suggest in place of one that is short for it.
    """
    near = difflib.get_close_matches(name[:80], list(known), n=1)
    return f" Did you mean {(whole or {}).get(near[0], near[0])!r}?" if near else ""


def missing_extra(package: str, extra: str, what: str) -> HarnessError:
    """Return the error for an optional package that is not installed; *what* begins the sentence."""
    return HarnessError(f"{what} needs {package}, which is not installed: pip install 'safety-harness[{extra}]'")
