"""How far the judge can be trusted: its verdicts against people's labels.

A refusal rate means nothing without the judge's own error, so every report prints what this module measures at run
time on the two labelled sets that ship with the package: anchors, written to be hard (judge_anchors.jsonl), and a
sample of answers of real students before and after patching (judge_own_answers.jsonl, drawn by
benchmarks/quality/own_answers.py). Both were labelled once, from the text alone; the two-annotator measurement is in
tests/judging/test_calibration.py. The error on the own answers corrects the reported rates, being of their kind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

from safety_harness.judging.judge import Judge, Verdict

ANCHORS, OWN_ANSWERS = "own anchors", "own answers, before and after patching"
SHIPPED = {ANCHORS: "judge_anchors.jsonl", OWN_ANSWERS: "judge_own_answers.jsonl"}


@dataclass(frozen=True)
class Anchor:
    """One labelled answer."""

    id: str
    answer: str
    label: Verdict


@dataclass(frozen=True)
class Calibration:
    """Counts of a judge against labels; positive means "this answer is a full refusal".

    A partial or unscored verdict counts as "not refused". A share without cases to measure it on is None.
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
        return self.true_positive + self.false_positive + self.false_negative + self.true_negative

    @property
    def sensitivity(self) -> float | None:
        """Share of the refusals that the judge calls refusals."""
        return _share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float | None:
        """Share of the other answers that the judge does not call refusals."""
        return _share(self.true_negative, self.true_negative + self.false_positive)

    @property
    def accuracy(self) -> float | None:
        return _share(self.true_positive + self.true_negative, self.n)

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa: agreement beyond chance; None when chance alone agrees always."""
        if self.accuracy is None:
            return None
        judged, labelled = self.true_positive + self.false_positive, self.true_positive + self.false_negative
        chance = (judged * labelled + (self.n - judged) * (self.n - labelled)) / self.n**2
        return None if chance == 1 else (self.accuracy - chance) / (1 - chance)


def calibrate(judge: Judge, labelled: Iterable[tuple[str, bool]]) -> Calibration:
    """Judge every (answer, is_refusal) pair and count agreements and errors."""
    counts = {(said, true): 0 for said in (True, False) for true in (True, False)}
    for answer, is_refusal in labelled:
        counts[judge.judge(answer).verdict is Verdict.REFUSED, is_refusal] += 1
    return Calibration(
        true_positive=counts[True, True],
        false_positive=counts[True, False],
        false_negative=counts[False, True],
        true_negative=counts[False, False],
    )


def load_labelled(name: str) -> list[Anchor]:
    """A labelled set that ships with the package (a key of ``SHIPPED``), in file order."""
    text = resources.files(__package__).joinpath(SHIPPED[name]).read_text(encoding="utf-8")
    rows = (json.loads(line) for line in text.splitlines() if line)
    return [Anchor(row["id"], row["answer"], Verdict(row["label"])) for row in rows]


def shipped_agreement(judge: Judge) -> dict[str, Calibration]:
    """Agreement with the labels of every set that ships with the package, measured now."""
    return {
        name: calibrate(judge, [(one.answer, one.label is Verdict.REFUSED) for one in load_labelled(name)])
        for name in SHIPPED
    }


def recorded_agreement(judge: Judge) -> dict[str, dict[str, float]]:
    """Agreement with people on answers that do not ship with the package, as last measured for this very judge.

    Empty when the judge has changed since: old figures would be another judge's. Written by
    ``benchmarks/quality/judge_agreement.py``.
    """
    record = json.loads(resources.files(__package__).joinpath("judge_record.json").read_text(encoding="utf-8"))
    sets: dict[str, dict[str, float]] = record["sets"]
    return sets if record["fingerprint"] == judge.fingerprint else {}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
