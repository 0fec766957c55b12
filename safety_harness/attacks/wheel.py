"""Read templates of PyRIT from its pinned wheel, as data: nothing of it is installed or stored here.

This room does not fetch. Who asks for a template says how a source of the registry becomes a file.
"""

from __future__ import annotations

import functools
import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from safety_harness.attacks.attack import Attack
from safety_harness.attacks.templates import QUESTION, text_attack
from safety_harness.errors import DataError, SourceError
from safety_harness.reading import MIB, Reader

Fetch = Callable[[Mapping[str, str]], Path]
"""Makes of the table of a registry's source the file that it names, as ``registry.fetch.resolve`` does."""

_SLOT = "{{ prompt }}"
_JINJA = re.compile(r"\{[{%#].{,40}")
_FILE = Reader(SourceError, at_most=MIB)


@functools.cache
def wheel_table() -> Mapping[str, Any]:
    """Return the wheel and the rows of its templates by name."""
    return tomllib.loads(resources.files(__package__).joinpath("wheel.toml").read_text("utf-8"))


def wheel_attack(name: str, fetch: Fetch, table: Mapping[str, Any]) -> Attack:
    """Return the attack *name* of a *table* of a wheel and its templates.

    Raises:
        SourceError: the wheel cannot be had, or the file in it is another one.
        DataError: the template has no slot or several, or holds Jinja that only PyRIT fills.
    """
    wheel, row = table["wheel"], table["templates"][name]
    file = fetch({"pypi": wheel["pypi"], "sha256": wheel["sha256"], "file": f"{wheel['folder']}/{row['file']}"})
    content = _FILE.content(file)
    if (found := hashlib.sha256(content).hexdigest()) != row["sha256"]:
        raise SourceError(
            f"{file}: sha256 is {found}, but the template of the attack {name!r} has {row['sha256']}. Remove the file, "
            "and it is fetched again."
        )
    # Jinja, by which PyRIT fills its templates, leaves one line end off.
    text = str(yaml.safe_load(content)["value"]).removesuffix("\n").replace(_SLOT, QUESTION)
    if rest := _JINJA.search(text):
        raise DataError(
            f"{file}: the template of the attack {name!r} holds Jinja besides its slot, {rest[0]!r}, which would be "
            "sent as it is. Name another template."
        )
    return text_attack(name, text, row["kind"], f"{wheel['pypi']}, {row['file']}: {row['source']}", str(file))
