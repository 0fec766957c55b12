"""The card of an artifact: what it is, for whoever finds it on a hub or in a release."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from importlib import resources

import jinja2
import yaml

from safety_harness.errors import ArtifactError
from safety_harness.gate.numbers import Defense
from safety_harness.gate.thresholds import SOURCE
from safety_harness.patch.manifest import Manifest
from safety_harness.patch.metrics import metrics
from safety_harness.text import escape


def card(manifest: Manifest) -> str:
    """Return the Markdown of README.md, with the front matter that a hub reads.

    Raises:
        ArtifactError: the manifest lacks what the card shows.
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
    template = environment.from_string(source)
    try:
        return template.render(
            m=manifest,
            roles=_by_role(manifest),
            refusals=_refusals(manifest),
            yaml=_yaml,
            model_index=_model_index(manifest),
            not_shown=manifest.not_shown,
            changed=manifest.gate and manifest.gate.provenance.get(SOURCE),
        )
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise ArtifactError(f"The evidence in the manifest is not whole ({error}). Get the artifact again.") from error


def _model_index(manifest: Manifest) -> str:
    """Return the metrics as a hub reads them, in YAML; empty where no gate has seen the patch."""
    results = [
        {
            "task": {"type": "text-generation", "name": one.task},
            "dataset": {"type": "held-out", "name": one.questions, **({"revision": one.sha256} if one.sha256 else {})},
            "metrics": [
                {
                    "type": one.type,
                    "value": round(one.value, 6),
                    "name": one.name,
                    **({"args": {"interval": list(one.interval)}} if one.interval else {}),
                }
            ],
        }
        for one in metrics(manifest)
    ]
    outcome = manifest.gate.outcome.value.upper() if manifest.gate else ""
    index = [{"name": f"{manifest.search.student}, patched (gate: {outcome})", "results": results}]
    return yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True) if results else ""


def _by_role(manifest: Manifest) -> Mapping[str, int]:
    """Return how many numbers move of each role."""
    parameters: Counter[str] = Counter()
    for entry in manifest.entries:
        parameters[entry.role] += entry.parameters
    return parameters


def _refusals(manifest: Manifest) -> tuple[str, str] | None:
    """Return the refused harmful questions before and after, with their intervals; None where none were counted."""
    defense = manifest.gate and manifest.gate.checks.get("defense")
    if not defense or not isinstance(numbers := defense.numbers, Defense):
        return None
    if numbers.before_interval is None or numbers.after_interval is None:
        return None
    (low, high), (low_after, high_after) = numbers.before_interval, numbers.after_interval
    return (
        f"{numbers.before}/{numbers.n} ({low:.2f}–{high:.2f})",
        f"{numbers.after}/{numbers.n} ({low_after:.2f}–{high_after:.2f})",
    )


def _yaml(text: str) -> str:
    """Return a text as YAML writes it in double quotes; JSON's strings are a part of YAML's."""
    return json.dumps(text)
