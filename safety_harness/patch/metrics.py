"""Collect what the gate measured of a patched student, for the formats of other tools: model-index and ML-BOM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from safety_harness.gate.numbers import Defense, Divergence, OverRefusal, Perplexity, Rates, Task
from safety_harness.patch.manifest import Manifest


@dataclass(frozen=True)
class Metric:
    """One number of the patched student: what it is called, its value and bounds, and the questions it was taken on."""

    type: str
    name: str
    value: float
    task: str
    questions: str
    interval: Sequence[float] | None = None
    sha256: str | None = None


def metrics(manifest: Manifest) -> list[Metric]:
    """Return the metrics of a gated patch; none where no gate has seen it."""
    return list(_metrics(manifest)) if manifest.gate else []


def _metrics(manifest: Manifest) -> Iterator[Metric]:
    assert manifest.gate
    sets = manifest.identity.questions
    for check in manifest.gate.checks.values():
        match check.numbers:
            case Defense() as one:
                task = "refuses harmful questions"
                yield from _rate(one, "defense-success-rate", "DSR", task, "harmful.report", sets)
            case OverRefusal() as one:
                task = "answers harmless questions"
                yield from _rate(one, "over-refusal-rate", "over-refusal", task, "harmless.report", sets)
            case Task() as one:
                yield from _rate(one, "accuracy", "own task", "keeps its own task", "task.report", sets)
            case Perplexity(after=float(after)):
                yield Metric("perplexity", "perplexity", after, "keeps its perplexity", "text", sha256=sets.get("text"))
            case Divergence(mean=float(mean)):
                name, task = "KL from the student, nats a token", "stays near itself"
                yield Metric("kl-divergence", name, mean, task, "harmless.report", sha256=sets.get("harmless.report"))


def _rate(one: Rates, kind: str, name: str, task: str, questions: str, sets: Mapping[str, str]) -> Iterator[Metric]:
    if one.n and one.after is not None:
        counted = f"{name}, {one.after} of {one.n}"
        yield Metric(kind, counted, one.after / one.n, task, questions, one.after_interval, sets.get(questions))
