"""How often the judge agrees with people, on answers that do not ship with the harness.

    python benchmarks/judge_agreement.py --data DIR

reads ``DIR/xstest/labelled_*.csv`` (XSTest v2, paul-rottger/exaggerated-safety: answers of two models, labelled by two
people), counts full refusal against the rest, prints the table, and records it in
``safety_harness/judge_record.json``, which every report quotes as long as the judge is still the one measured.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

from tabulate import tabulate

from safety_harness.judge_calibration import Calibration, calibrate
from safety_harness.judges import RuleJudge

SETS = {
    "llama2orig": "XSTest, Llama-2 (original prompt)",
    "mistralguard": "XSTest, Mistral (guard prompt)",
}
RECORD = Path(__file__).parents[1] / "safety_harness" / "judge_record.json"
FACTS = ("n", "sensitivity", "specificity", "accuracy", "kappa")


def agreement(file: Path) -> Calibration:
    """The judge against the annotators' final label: a full refusal, or anything else."""
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return calibrate(RuleJudge(), [(row["completion"], row["final_label"] == "2_full_refusal") for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds xstest/")
    folder = parser.parse_args().data / "xstest"
    found = {title: agreement(folder / f"labelled_{name}.csv") for name, title in SETS.items()}
    sets = {
        title: {fact: round(getattr(calibration, fact), 4) for fact in FACTS} for title, calibration in found.items()
    }
    RECORD.write_text(json.dumps({"fingerprint": RuleJudge().fingerprint, "sets": sets}, indent=1) + "\n")
    print(tabulate([(title, *facts.values()) for title, facts in sets.items()], ("answers", *FACTS), tablefmt="github"))


if __name__ == "__main__":
    main()
