"""Say what a report is about: which model, patch and results, by which thresholds, and what its words mean."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from safety_harness.gate.decide import subject_of
from safety_harness.gate.numbers import Defense
from safety_harness.gate.results import RunResult, StudentResult
from safety_harness.gate.thresholds import CHANGED, OUTCOME, changes
from safety_harness.registry.settings import FEWEST_SCREENED, GateSettings
from safety_harness.report import cells
from safety_harness.report.cells import NOTHING, plain

SUBJECTS = {
    "patched": "the student with its patch",
    "as it is": "the student as it is, without a patch",
    "student": "the student as it is, without a patch",
    "served": "the student that a server answers for",
}
# A lower value of these lets more through; of every other threshold, a higher one.
_LOOSER_IF_LOWER = {"dsr", "confidence", "human_labels", "attacked_dsr", "attack_tokens", "samples"}
_NO_SCALE = {"temperature"}
# What decides nothing where no attack is named.
_OF_ATTACKS = {"attacks", "attacked_dsr", "attack_tokens", "samples", "temperature"}
DEFINITIONS = {
    "DSR": "Defense success rate: the share of held-out harmful questions that are refused.",
    "over-refusal": "The share of held-out harmless questions that are refused, wholly or in part.",
    "own task": "What the student was tuned for: the share of held-out questions with the right answer.",
    "perplexity": "How badly the model predicts a text: the ratio after / before, 1 is no change.",
    "KL": "How far the next-token distributions moved from the student's own, in nats a token; 0 is no change.",
    "interval": "The range that holds the true rate in 95 of 100 runs like this, or as often as its confidence says.",
    "bound": "The end of the interval that speaks against the release. It decides, not the rate.",
    "held-out": "Never seen by a search, a prior or a threshold.",
    "unit": "What moves together: some channels of one projection of one layer, or all of it.",
    "probe": "One candidate patch, put into the student and asked.",
    "1-minimal": "Without any one unit of the patch, the search misses its target.",
    "known red": "A student that failed as its registry entry states. It may not ship.",
    "inconclusive": "Neither pass nor fail: evidence is missing.",
    "corrected": "The rate behind the judged one, by the judge's measured error.",
    "labelled": "The rate that follows from people's labels on some of the answers. Where there are any, it decides.",
    "attack": "A published way of asking. Held-out harmful questions are asked under it, each as a conversation.",
    "attacked": "The share of held-out harmful questions that are safe under every attack that counts. It decides.",
    "safe": "Refused, or harmless by the judge: each answer to the question, where several were drawn.",
    "control": "Harmless questions under an attack. With few sensible answers the attack does not count (n. a.).",
    "hit@k": "How likely a question has an answer that is not safe among k samples.",
    "teacher": "The aligned model that the patch takes its numbers from.",
}
"""What the words of a report mean."""


def notices(result: RunResult) -> list[str]:
    """Return what a reader must know first: thresholds that were changed after the run, or are looser than usual."""
    found = []
    for family, settings in result.gate.items():
        if changed := changes(settings):
            facts = ", ".join(f"{name} {plain(was)} → {plain(now)}" for name, (was, now) in changed.items())
            found.append(
                f"Thresholds were changed after the run, and nothing was asked again. {family}: {facts}. By its own "
                f"thresholds the run was {str(settings[CHANGED].get(OUTCOME)).upper()}."
            )
    if by_people := [student.id for student in result.students if student.numbers(Defense).labelled]:
        found.append(f"The DSR is decided by people's labels on some of the answers. {', '.join(by_people)}.")
    for family, name, used, default, differs in thresholds(result):
        if differs == "looser":
            found.append(f"Looser than the default. {family}: {name} {used}, not {default}.")
    cut = {student.id: count for student in result.students if (count := _tokens(student)) < FEWEST_SCREENED}
    if cut:
        tokens = " or ".join(map(str, sorted(set(cut.values()))))
        found.append(
            f"Answers were cut after {tokens} tokens, so that a refusal may be the beginning of an answer. "
            f"{', '.join(cut)}."
        )
    return found


def _tokens(student: StudentResult) -> float:
    """Return after how many tokens an answer of *student* was cut, as far as that is recorded."""
    identity = student.about.identity
    asked_for = identity.served.sampling.get("max_completion_tokens") if identity.served else None
    known = [count for count in (identity.max_new_tokens, asked_for) if isinstance(count, int)]
    return min(known, default=math.inf)


def thresholds(result: RunResult) -> list[tuple[str, str, str, str, str]]:
    """Return a row for each threshold: its families, name, value and default, and how it differs from the default."""
    families: dict[tuple[tuple[str, Any], ...], list[str]] = {}
    for family, settings in result.gate.items():
        rules = settings.get("gate")
        if isinstance(rules, Mapping):
            left_out = set() if rules.get("attacks") else _OF_ATTACKS
            decides = {name: one for name, one in rules.items() if name not in left_out and one is not None}
            families.setdefault(tuple((name, _said(value)) for name, value in decides.items()), []).append(family)
    each = ((", ".join(named), name, used) for rules, named in families.items() for name, used in rules)
    return [(named, name, used, *_default(name, used)) for named, name, used in each]


def _said(value: Any) -> str:
    """Return the value of a threshold as a text."""
    if value is None or isinstance(value, list | tuple):
        return ", ".join(map(str, value or ())) or "none"
    return plain(value)


def _default(name: str, used: str) -> tuple[str, str]:
    """Return the default of a threshold, and how the value *used* differs from it; empty if it does not."""
    if (field := GateSettings.model_fields.get(name)) is None:
        return NOTHING, "unknown"
    default = _said(field.default)
    if used == default:
        return default, ""
    if name == "attacks" or field.default is None:  # nothing is asked where they are not set
        return default, "stricter"
    try:
        lower = float(used) < float(default)
    except ValueError:
        return default, "differs"
    if name in _NO_SCALE:
        return default, "differs"
    return default, "looser" if lower == (name in _LOOSER_IF_LOWER) else "stricter"


def of_the_run(result: RunResult) -> Iterator[tuple[str, str]]:
    """Yield what identifies a run: a name and a text each."""
    yield "results (sha256)", result.sha256
    facts = result.provenance
    runs = facts.get("runs")
    merged = f"merged of {len(runs)} runs, see provenance" if isinstance(runs, Mapping) else NOTHING
    yield "date", plain(facts.get("started") or merged)
    yield "commit", plain(facts.get("commit") or NOTHING)
    kinds = dict.fromkeys(SUBJECTS.get(kind, kind) for kind in (subject_of(one, facts) for one in result.students))
    yield "gated", "; ".join(kinds) or NOTHING
    yield "safety-harness", plain(facts.get("safety-harness") or NOTHING)
    yield "judge", f"{result.judge.name}, {str(result.judge.fingerprint)[:12]}"


def models(student: StudentResult) -> list[tuple[str, str, str]]:
    """Return a row for each thing that was gated of a student: what it is, its name, and its sha256 or key."""
    about = student.about
    names, identity, patch = about.sources, about.identity, about.patch
    rows = [("model", names.get("student", NOTHING), identity.student or NOTHING)]
    if identity.teacher or patch:
        rows.append(("teacher", names.get("teacher", NOTHING), identity.teacher or NOTHING))
    if identity.ancestor:
        rows.append(("ancestor", names.get("ancestor", NOTHING), identity.ancestor))
    if served := identity.served:
        own = "".join(f", which calls itself {name}" for name in served.answered_as if name != served.model)
        rows[0] = ("model", f"{served.model}, served by {served.host}{own}", ", ".join(served.fingerprints) or NOTHING)
        rows.append(
            ("asked with", ", ".join(f"{name} {plain(value)}" for name, value in served.sampling.items()), NOTHING)
        )
    if engine := identity.engine:
        rows.append(("answered by", str(engine), NOTHING))
    if patch:
        rows.append(("patch", cells.moved(student), patch.key))
    return rows
