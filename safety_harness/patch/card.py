"""The card of an artifact: what it is, for whoever finds it on a hub or in a release."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2

from safety_harness.errors import ArtifactError
from safety_harness.patch.manifest import Manifest
from safety_harness.text import escape


def card(manifest: Manifest) -> str:
    """The Markdown of README.md, with the front matter that a hub reads.

    Raises:
        ArtifactError: the gate's evidence in the manifest lacks a number.
    """
    source = resources.files(__package__).joinpath("card.md.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML: every text from elsewhere goes through `md`
    )
    environment.filters["md"] = lambda value: escape(str(value))
    environment.filters["rate"] = _rate
    try:
        return environment.from_string(source).render(m=manifest, roles=_by_role(manifest), yaml=_yaml)
    except (jinja2.TemplateError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"The evidence in the manifest is not whole ({error}). Get the artifact again.") from error


def _by_role(manifest: Manifest) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for entry in manifest.entries:
        found[entry.role] = found.get(entry.role, 0) + entry.parameters
    return found


def _rate(numbers: Mapping[str, Any], when: str) -> str:
    low, high = numbers[f"{when}_interval"]
    return f"{int(numbers[when])}/{int(numbers['n'])} ({low:.2f}–{high:.2f})"


def _yaml(text: str) -> str:
    """A text as YAML writes it in double quotes; JSON's strings are a part of YAML's."""
    return json.dumps(text)
