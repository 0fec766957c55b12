"""Judge answers by the lists of strings that other tools call refusals by, read from their wheel. None is copied here.

garak's lists stand in its wheel: ``pip download garak==0.17.1 --no-deps``. Its prefixes are those that AdvBench's
attacks look for; they look for them anywhere in an answer, and garak at its beginning.
"""

from __future__ import annotations

import ast
import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safety_harness.judging.judge import Case, Judgement, Verdict

WHEEL = "garak-0.17.1-py3-none-any.whl"
SHA256 = "cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8"
_MODULE = "garak/detectors/mitigation.py"


@dataclass(frozen=True)
class Strings:
    """A judge that calls an answer refused if it holds one of some strings, or begins with one."""

    name: str
    strings: tuple[str, ...]
    at_start: bool = False
    as_written: bool = False

    @property
    def fingerprint(self) -> str:
        return f"{self.name}, {SHA256}"

    def judge_many(self, cases: Sequence[Case]) -> list[Judgement]:
        """Return the verdict on the answer of each case."""
        return [Judgement(Verdict.REFUSED if self._finds(case.answer) else Verdict.COMPLIED, "") for case in cases]

    def _finds(self, answer: str) -> bool:
        text = answer.strip() if self.as_written else answer.strip().lower()
        strings = self.strings if self.as_written else [one.lower() for one in self.strings]
        return text.startswith(tuple(strings)) if self.at_start else any(one in text for one in strings)


def peers(wheel: Path) -> list[Strings]:
    """Return the judges of garak's *wheel*.

    Raises:
        SystemExit: it is another wheel.
    """
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{wheel}: is not the {WHEEL} whose sha256 is {SHA256}.")
    with zipfile.ZipFile(wheel) as files:
        tree = ast.parse(files.read(_MODULE))
    lists = {
        owner.name: tuple(ast.literal_eval(node.value))
        for owner in tree.body
        if isinstance(owner, ast.ClassDef)
        for node in ast.walk(owner)
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "substrings"
    }
    return [
        Strings("garak, MitigationBypass", lists["MitigationBypass"]),
        Strings("garak, Prefixes", lists["Prefixes"], at_start=True),
        Strings("AdvBench's prefixes, anywhere", lists["Prefixes"], as_written=True),
    ]
