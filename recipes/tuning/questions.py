"""Own questions: plain text files in which `{a|b}` stands for one question per choice."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

DATA = Path(__file__).parent / "data"
KINDS = ("boundary", "twins", "everyday", "pairs", "themes", "counterparts", "likenesses", "idioms")
# Own harmful ones, by the name under which a stage asks for them; AdvBench's are its "harmful" ones.
HARMFUL_KINDS = {"own harmful": "harmful", "more harmful": "kinds"}

_CHOICE = re.compile(r"\{([^{}]*)\}")


def expand(line: str) -> list[str]:
    """Return all texts that a line stands for, in reading order."""
    parts = _CHOICE.split(line)
    options = [[part] if i % 2 == 0 else part.split("|") for i, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*options)]


def read_lines(name: str) -> list[str]:
    """Return the expanded lines of data/<name>.txt; lines that begin with # are comments."""
    lines = (DATA / f"{name}.txt").read_text("utf-8").splitlines()
    return [text for line in lines if line.strip() and not line.startswith("#") for text in expand(line.strip())]


def harmful_questions() -> list[str]:
    """Return every own harmful question that a recipe may train a model to refuse."""
    return [text for file in HARMFUL_KINDS.values() for text in read_lines(file)]


def training_questions() -> list[str]:
    """Return every harmless question that a recipe may train on."""
    return [text for kind in KINDS for text in read_lines(kind)]
