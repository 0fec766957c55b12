"""List the packages that a run measures with."""

from __future__ import annotations

import re
from importlib import metadata


def installed() -> dict[str, str]:
    """Return name -> version of every package that can be imported, and nothing about where it lies or came from."""
    found: dict[str, str] = {}
    for package in metadata.distributions():  # of two that have one name, Python imports the first
        if name := package.metadata["Name"]:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), package.version)
    return dict(sorted(found.items()))
