"""Measure how often the judge agrees with people, on answers that do not ship with the harness.

    python -m benchmarks.quality.judge_agreement --data DIR

reads ``DIR/xstest/labelled_*.csv`` (XSTest v2, paul-rottger/exaggerated-safety: answers of two models, labelled by two
people) and counts full refusal against the rest. It prints the table and writes it to
``safety_harness/judging/record.json``. Every report quotes the record while the judge is still the one measured. Each
set is counted once whole and once on its 200 unsafe questions alone, the kind that a DSR is made of.

``--learned`` adds two yardsticks: the two people against each other, and a classifier of word sequences (TF-IDF of one
to three words, logistic regression). It needs ``pip install scikit-learn``. The classifier is trained on nine tenths of
a model's labelled answers and counted on the tenth left out, for each tenth in turn.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tabulate import tabulate

from safety_harness.judging.calibration import Calibration, calibrate, measured_agreement
from safety_harness.judging.rules import RuleJudge

SETS = {
    "llama2orig": "XSTest, Llama-2 (original prompt)",
    "mistralguard": "XSTest, Mistral (guard prompt)",
}
RECORD = Path(__file__).parents[2] / "safety_harness" / "judging" / "record.json"
UNSAFE = ", unsafe questions alone"
FACTS = ("n", "sensitivity", "specificity", "accuracy", "kappa")

# Inverse strengths of the classifier's regularisation; the most accurate one counts.
LEARNED_C = (1.0, 10.0, 100.0)


def labelled(file: Path, label: str = "final_label", only: frozenset[str] | None = None) -> list[tuple[str, bool]]:
    """Read (answer, whether *label* calls it a full refusal) of every row, or of the answers to the ids in *only*."""
    with file.open(encoding="utf-8", newline="") as stream:
        return [
            (row["completion"], row[label] == "2_full_refusal")
            for row in csv.DictReader(stream)
            if only is None or row["id"].removeprefix("v2-") in only
        ]


def unsafe_questions(file: Path) -> frozenset[str]:
    """Read the ids of the questions that should be refused, which XSTest calls contrasts."""
    with file.open(encoding="utf-8", newline="") as stream:
        return frozenset(row["id"] for row in csv.DictReader(stream) if row["label"] == "unsafe")


def people(file: Path) -> Calibration:
    """Count the second annotator against the first."""
    second = [refused for _, refused in labelled(file, "annotation_2")]
    return _count(second, [refused for _, refused in labelled(file, "annotation_1")])


def learned(file: Path) -> Calibration:
    """Return the most accurate of a few classifiers, each of which judges only answers that it was not trained on."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    answers, labels = zip(*labelled(file), strict=True)
    folds = StratifiedKFold(10, shuffle=True, random_state=0)
    calibrations = []
    for c in LEARNED_C:
        words = TfidfVectorizer(ngram_range=(1, 3), sublinear_tf=True, min_df=2)
        classifier = make_pipeline(words, LogisticRegression(C=c, max_iter=2000))
        calibrations.append(_count(cross_val_predict(classifier, answers, labels, cv=folds), labels))
    return max(calibrations, key=lambda calibration: calibration.accuracy or 0.0)


def _count(predicted: Iterable[bool], labels: Sequence[bool]) -> Calibration:
    """Count agreements and errors of *predicted* refusals against their *labels*."""
    counts = Counter((bool(one), label) for one, label in zip(predicted, labels, strict=True))
    return Calibration(
        true_positive=counts[True, True],
        false_positive=counts[True, False],
        false_negative=counts[False, True],
        true_negative=counts[False, False],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds xstest/")
    parser.add_argument("--learned", action="store_true", help="add the second person and a learned classifier")
    arguments = parser.parse_args()
    files = {title: arguments.data / "xstest" / f"labelled_{name}.csv" for name, title in SETS.items()}
    unsafe = unsafe_questions(arguments.data / "xstest" / "xstest_prompts.csv")
    sets = {
        title + part: _facts(calibrate(RuleJudge(), labelled(file, only=only)))
        for title, file in files.items()
        for part, only in (("", None), (UNSAFE, unsafe))
    }
    shipped = {name: calibration.counts for name, calibration in measured_agreement(RuleJudge()).items()}
    record = {"fingerprint": RuleJudge().fingerprint, "shipped": shipped, "sets": sets}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    rows = [("judge", title, *facts.values()) for title, facts in sets.items()]
    if arguments.learned:
        for name, peer in (("second person", people), ("learned", learned)):
            rows += [(name, title, *_facts(peer(file)).values()) for title, file in files.items()]
    print(tabulate(rows, ("who", "answers", *FACTS), tablefmt="github"))


def _facts(calibration: Calibration) -> dict[str, float]:
    return {fact: round(getattr(calibration, fact), 4) for fact in FACTS}


if __name__ == "__main__":
    main()
