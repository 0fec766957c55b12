"""Measure how far the judge can be trusted: its verdicts against people's labels.

A refusal rate means nothing without the judge's own error. Every report therefore prints it for the two labelled sets
that ship with the package: as record.json has it of this very judge, or measured at run time. Anchors were written to
be hard (anchors.jsonl). Own answers are a sample of real students' answers before and after patching
(own_answers.jsonl, drawn by benchmarks/quality/own_answers.py). Both sets were labelled once, from the text alone. The
error on the own answers corrects the reported rates, because it is of their kind. tests/judging/test_calibration.py
measures the judge against two annotators.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any

from safety_harness.judging.judge import PREMISE, Case, Judge, Verdict, count_premise

ANCHORS, OWN_ANSWERS = "own anchors", "own answers, before and after patching"
SHIPPED = {ANCHORS: "anchors.jsonl", OWN_ANSWERS: "own_answers.jsonl"}


@dataclass(frozen=True)
class Anchor:
    """One labelled answer."""

    id: str
    answer: str
    label: Verdict


@dataclass(frozen=True)
class Calibration:
    """Counts of a judge against labels, where positive means "this answer is a full refusal".

    A partial or unscored verdict counts as "not refused", a disputed premise as its caller says. A share that has no
    cases to be measured on is None.
    """

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def counts(self) -> list[int]:
        """True and false positives, false and true negatives."""
        return [self.true_positive, self.false_positive, self.false_negative, self.true_negative]

    @property
    def n(self) -> int:
        """Number of labelled answers."""
        return self.true_positive + self.false_positive + self.false_negative + self.true_negative

    @property
    def sensitivity(self) -> float | None:
        """Share of the refusals that the judge calls refusals."""
        return _share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float | None:
        """Share of the answers labelled otherwise that the judge does not call refusals."""
        return _share(self.true_negative, self.true_negative + self.false_positive)

    @property
    def accuracy(self) -> float | None:
        """Share of all answers on which judge and label agree."""
        return _share(self.true_positive + self.true_negative, self.n)

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa, the agreement beyond chance, or None when chance alone always agrees."""
        if self.accuracy is None:
            return None
        judged, labelled = self.true_positive + self.false_positive, self.true_positive + self.false_negative
        chance = (judged * labelled + (self.n - judged) * (self.n - labelled)) / self.n**2
        return None if chance == 1 else (self.accuracy - chance) / (1 - chance)


def calibrate(judge: Judge, labelled: Iterable[tuple[str, bool]], premise: str = PREMISE) -> Calibration:
    """Judge every (answer, is a refusal) pair, and count agreements and errors; a disputed premise as *premise*."""
    answers, labels = zip(*labelled, strict=True) if (labelled := list(labelled)) else ((), ())
    judged = judge.judge_many([Case("", answer) for answer in answers])
    return agreement([one.verdict for one in judged], labels, premise)


def agreement(judged: Iterable[Verdict], labels: Iterable[bool], premise: str = PREMISE) -> Calibration:
    """Count agreements and errors of verdicts against labels (is a refusal); a disputed premise as *premise*."""
    verdicts = count_premise(judged, premise)
    counts = Counter((verdict is Verdict.REFUSED, label) for verdict, label in zip(verdicts, labels, strict=True))
    return Calibration(
        true_positive=counts[True, True],
        false_positive=counts[True, False],
        false_negative=counts[False, True],
        true_negative=counts[False, False],
    )


def load_labelled(name: str) -> list[Anchor]:
    """Read a labelled set that ships with the package (a key of ``SHIPPED``), in file order."""
    text = resources.files(__package__).joinpath(SHIPPED[name]).read_text(encoding="utf-8")
    rows = (json.loads(line) for line in text.splitlines() if line)
    return [Anchor(row["id"], row["answer"], Verdict(row["label"])) for row in rows]


def shipped_agreement(judge: Judge) -> dict[str, Calibration]:
    """Return the agreement with the labels of every set that ships: as recorded of this judge, or measured now."""
    recorded = _recorded("shipped", judge)
    if recorded.keys() == SHIPPED.keys():
        return {name: Calibration(*counts) for name, counts in recorded.items()}
    return measured_agreement(judge)


def measured_agreement(judge: Judge) -> dict[str, Calibration]:
    """Measure the agreement with the labels of every set that ships with the package."""
    return {
        name: calibrate(judge, [(one.answer, one.label is Verdict.REFUSED) for one in load_labelled(name)])
        for name in SHIPPED
    }


def recorded_agreement(judge: Judge) -> dict[str, dict[str, float]]:
    """Return the recorded agreement with people on answers that do not ship with the package.

    Empty when the judge has changed since the record was made: its figures are another judge's.
    ``benchmarks/quality/judge_agreement.py`` writes the record.
    """
    return _recorded("sets", judge)


def _recorded(part: str, judge: Judge) -> dict[str, Any]:
    """Return a *part* of record.json, or nothing where it is of another judge."""
    record = json.loads(resources.files(__package__).joinpath("record.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = record[part] if record["fingerprint"] == judge.fingerprint else {}
    return found


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
