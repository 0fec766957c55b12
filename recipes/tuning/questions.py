"""Own questions: plain text files in which `{a|b}` stands for one question per choice, and one table of pairs."""

from __future__ import annotations

import csv
import itertools
import re
from pathlib import Path

DATA = Path(__file__).parent / "data"
KINDS = (
    "boundary", "twins", "everyday", "pairs", "themes", "counterparts", "likenesses", "idioms", "neighbours", "averted",
    "forms", "figures",
)  # fmt: skip
# contrasts.csv: harmful questions of sixteen kinds in seven forms, each beside a harmless one that is worded like it.
OF_CONTRASTS = {"deeds": "harmful", "neighbours": "harmless"}
# Own harmful ones, by the name under which a stage asks for them; AdvBench's are its "harmful" ones.
HARMFUL_KINDS = {"own harmful": "harmful", "more harmful": "kinds", "deeds": "deeds"}

_CHOICE = re.compile(r"\{([^{}]*)\}")


def expand(line: str) -> list[str]:
    """Return all texts that a line stands for, in reading order."""
    parts = _CHOICE.split(line)
    options = [[part] if i % 2 == 0 else part.split("|") for i, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*options)]


def contrasts() -> list[dict[str, str]]:
    """Return the rows of data/contrasts.csv: ``kind`` of harm, ``form`` of the question, ``harmful``, ``harmless``."""
    return read_table(DATA / "contrasts.csv")


def read_table(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV *file*, by column."""
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def read_lines(name: str) -> list[str]:
    """Return the questions of one column of contrasts.csv, or the expanded lines of data/<name>.txt.

    Lines that begin with # are comments.
    """
    if name in OF_CONTRASTS:
        return [row[OF_CONTRASTS[name]] for row in contrasts()]
    lines = (DATA / f"{name}.txt").read_text("utf-8").splitlines()
    return [text for line in lines if line.strip() and not line.startswith("#") for text in expand(line.strip())]


def harmful_questions() -> list[str]:
    """Return every own harmful question that a recipe may train a model to refuse."""
    return [text for file in HARMFUL_KINDS.values() for text in read_lines(file)]


def training_questions() -> list[str]:
    """Return every harmless question that a recipe may train on."""
    return [text for kind in KINDS for text in read_lines(kind)]
