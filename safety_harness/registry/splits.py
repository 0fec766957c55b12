"""The questions that a student is asked: read, checked, hashed, with search and report kept apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from safety_harness.errors import DataError
from safety_harness.registry.fetch import resolve_prompts
from safety_harness.registry.load import Student
from safety_harness.registry.prompts import PromptSet, check_disjoint, in_turn, read_prompts, without_near_duplicates
from safety_harness.registry.schema import Family, PromptSource, SplitSpec
from safety_harness.text import words


@dataclass(frozen=True)
class Split:
    """One question set on both sides of the split."""

    search: PromptSet
    report: PromptSet


@dataclass(frozen=True)
class ByKind:
    """Questions of both kinds, for one purpose."""

    harmful: PromptSet
    harmless: PromptSet


@dataclass(frozen=True)
class StudentSplits:
    """What one student is searched and gated on; ``task`` is None for a student without a task of its own.

    ``prior`` are the questions that the order of the units is taken from: those of the search, or others.
    """

    harmful: Split
    harmless: Split
    text: PromptSet
    task: Split | None
    prior: ByKind

    @property
    def reported(self) -> tuple[PromptSet, ...]:
        """The held-out sets that the gate asks one by one."""
        return tuple(pair.report for pair in self._pairs)

    @property
    def every(self) -> tuple[PromptSet, ...]:
        """Every set that is answered, on either side."""
        both = [prompts for pair in self._pairs for prompts in (pair.search, pair.report)]
        return (*both, self.prior.harmful, self.prior.harmless)

    @property
    def _pairs(self) -> tuple[Split, ...]:
        return tuple(pair for pair in (self.harmful, self.harmless, self.task) if pair)

    @property
    def hashes(self) -> dict[str, str]:
        """sha256 of every set, by its role: what a measurement was made on."""
        sides = {"harmful": self.harmful, "harmless": self.harmless, "task": self.task}
        found = {
            f"{name}.{side}": getattr(pair, side).sha256
            for name, pair in sides.items()
            if pair
            for side in ("search", "report")
        }
        found |= {
            "prior.harmful.search": self.prior.harmful.sha256,
            "prior.harmless.search": self.prior.harmless.sha256,
        }
        return found | {"text": self.text.sha256}


def load_questions(student: Student) -> StudentSplits:
    """Read every prompt file of *student*.

    Raises:
        DataError, SourceError: a file is missing, wrong, or on both sides of the split; a task has no answer.
    """
    family, task = student.family, student.spec.task
    harmful = _sides(family.harmful, family.near_duplicates)
    harmless = _sides(family.harmless, family.near_duplicates)
    search = student.search
    prior_harmful, asked_harmful = _apart(harmful.search, search.prior_questions, "prior_questions")
    prior_harmless, asked_harmless = _apart(
        harmless.search, search.prior_harmless_questions, "prior_harmless_questions"
    )
    return StudentSplits(
        harmful=Split(asked_harmful, harmful.report),
        harmless=Split(asked_harmless, harmless.report),
        text=_read(family.text),
        task=_task_sides(task) if task else None,
        prior=ByKind(prior_harmful, prior_harmless),
    )


def further_questions(family: Family, asked: StudentSplits) -> Mapping[str, PromptSet]:
    """The question sets of other sources that *family* names, less what was searched on and near-duplicates of it.

    Raises:
        DataError, SourceError: a file is missing or wrong, or nothing of it is left.
    """
    searched = (asked.prior.harmful, asked.harmful.search, asked.prior.harmless, asked.harmless.search)
    return {name: _further(source, searched, family.near_duplicates) for name, source in family.further.items()}


def _sides(split: SplitSpec, near_duplicates: float = 1.0) -> Split:
    report = _read(split.report)
    searched = [_searched(source, report, near_duplicates) for source in split.searched]
    return Split(in_turn(searched), report.first(split.report.limit))


def _searched(source: PromptSource, report: PromptSet, near_duplicates: float) -> PromptSet:
    """The questions of *source* to search on, less what is near to one of the report."""
    search = _read(source)
    check_disjoint(search, report)
    if near_duplicates < 1.0:
        search = without_near_duplicates(search, report, near_duplicates)
    return search.first(source.limit)


def _further(source: PromptSource, searched: Sequence[PromptSet], near_duplicates: float) -> PromptSet:
    """The questions of *source* that were not *searched* on, nor near-duplicates of any."""
    prompts = _read(source)
    for seen in searched:
        prompts = without_near_duplicates(prompts, seen, near_duplicates)
    return prompts.first(source.limit)


def _apart(search: PromptSet, prior: int | None, setting: str) -> tuple[PromptSet, PromptSet]:
    """Questions for the prior and those for the oracle, which sees through what fits the former alone."""
    if prior is None:
        return search, search
    if prior >= len(search):
        raise DataError(
            f"{search.name} holds {len(search)} questions to search on, and {setting} = {prior} leaves none of them to "
            "the oracle. Lower it, or give more questions."
        )
    return search.first(prior), search.after(prior)


def _task_sides(split: SplitSpec) -> Split:
    sides = _sides(split)
    for prompts in (sides.search, sides.report):
        if unanswered := [prompt.text for prompt in prompts if prompt.answer is None]:
            raise DataError(f'{prompts.name}: the task {unanswered[0]!r} has no "answer". Give it one.')
        if wordless := [prompt.answer for prompt in prompts if not words(str(prompt.answer))]:
            raise DataError(
                f"{prompts.name}: the answer {wordless[0]!r} holds neither a word nor a number, so nothing could be "
                "told from it. Ask for a word."
            )
    return sides


def _read(source: PromptSource) -> PromptSet:
    return read_prompts(resolve_prompts(source), only=source.only)
