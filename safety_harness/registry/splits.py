"""Read the questions that a student is asked, and keep those of the search apart from the held-out ones."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from safety_harness.errors import DataError
from safety_harness.registry.columns import Columns
from safety_harness.registry.fetch import is_dataset, resolve_prompts
from safety_harness.registry.hash_split import (
    MOST_OF_A_SIDE,
    MOST_OF_FURTHER,
    NEAR,
    in_hash_order,
    require_enough,
    side_of,
    without_kinds_of,
)
from safety_harness.registry.load import Student
from safety_harness.registry.near import near_to
from safety_harness.registry.prompts import (
    PromptSet,
    as_documents,
    check_disjoint,
    in_turn,
    read_prompts,
    without_near_duplicates,
)
from safety_harness.registry.schema import Family
from safety_harness.registry.sources import MUST, PromptSource, SplitSpec
from safety_harness.text import question_key, words

# Share of the questions to search on that only the prior sees, and how many a prior reads at most.
PRIOR_SHARE, MOST_HARMFUL, MOST_HARMLESS = 0.4, 64, 128
# Of fewer questions, neither part would say much.
FEWEST_SPLIT = 40


@dataclass(frozen=True)
class Split:
    """One question set: the part to search on, and the held-out part that is reported."""

    search: PromptSet
    report: PromptSet


@dataclass(frozen=True)
class ByKind:
    """Harmful and harmless questions for one purpose."""

    harmful: PromptSet
    harmless: PromptSet


@dataclass(frozen=True)
class StudentSplits:
    """The questions on which one student is searched and gated.

    ``task`` is None for a student without a task of its own. ``prior`` are the questions from which the units are
    ranked: those of the search, or questions set aside for the prior.
    """

    harmful: Split
    harmless: Split
    text: PromptSet
    task: Split | None
    prior: ByKind
    must: Mapping[str, PromptSet] = field(default_factory=dict)
    """The family's lists, by the names of their checks."""

    @property
    def reported(self) -> tuple[PromptSet, ...]:
        """The held-out sets that the gate asks one by one."""
        return (*(pair.report for pair in self._pairs), *self.must.values())

    @property
    def every(self) -> tuple[PromptSet, ...]:
        """Every set that is answered, searched on or held out."""
        splits = [prompts for pair in self._pairs for prompts in (pair.search, pair.report)]
        return (*splits, self.prior.harmful, self.prior.harmless, *self.must.values())

    @property
    def _pairs(self) -> tuple[Split, ...]:
        return tuple(pair for pair in (self.harmful, self.harmless, self.task) if pair)

    @property
    def hashes(self) -> dict[str, str]:
        """sha256 of every set by its role, which identify the questions of a measurement."""
        splits = {"harmful": self.harmful, "harmless": self.harmless, "task": self.task}
        hashes = {
            f"{name}.{part}": getattr(pair, part).sha256
            for name, pair in splits.items()
            if pair
            for part in ("search", "report")
        }
        return hashes | {
            "prior.harmful.search": self.prior.harmful.sha256,
            "prior.harmless.search": self.prior.harmless.sha256,
            "text": self.text.sha256,
            **{f"{name}.report": prompts.sha256 for name, prompts in self.must.items()},
        }


def load_questions(student: Student) -> StudentSplits:
    """Read every prompt file of *student*.

    Raises:
        DataError, SourceError: a file is missing or wrong, a prompt is both searched on and held out, or a task has no
            answer. Or a set that was split by hash holds too few questions for the gate.
    """
    family, task, gate = student.family, student.spec.task, student.gate
    harmful = read_split(family.harmful, family.near_duplicates)
    harmless = read_split(family.harmless, family.near_duplicates)
    own = _task_split(task) if task else None
    must = {f"{MUST}{name}": read_source(source).first(source.limit) for name, source in family.must.items()}
    for spec, split, margin, threshold in (
        (family.harmful, harmful, 1 - gate.dsr, f"dsr = {gate.dsr:g}"),
        (family.harmless, harmless, gate.over_refusal, f"over_refusal = {gate.over_refusal:g}"),
        (task, own, gate.task, f"task = {gate.task:g}"),
    ):
        if spec and split and spec.report.part:
            require_enough(split.report, margin, gate.confidence, threshold)
    _require_one_kind(harmful, harmless)
    lists = tuple(must.values())
    harmful, harmless = _never_searched(harmful, lists), _never_searched(harmless, lists)
    own = own and _never_searched(own, lists)
    search = student.search
    prior_harmful, asked_harmful = _apart(harmful.search, search.prior_questions, "prior_questions", MOST_HARMFUL)
    prior_harmless, asked_harmless = _apart(
        harmless.search, search.prior_harmless_questions, "prior_harmless_questions", MOST_HARMLESS
    )
    return StudentSplits(
        harmful=Split(asked_harmful, harmful.report),
        harmless=Split(asked_harmless, harmless.report),
        text=as_documents(read_source(family.text).first(family.text.limit)),
        task=own,
        prior=ByKind(prior_harmful, prior_harmless),
        must=must,
    )


def near_to_searched(asked: StudentSplits) -> Iterator[str]:
    """Yield a sentence for each list that has questions much like those searched on: it shows less than it seems to."""
    searched = [said for pair in (asked.harmful, asked.harmless, asked.task) if pair for said in pair.search.said]
    for name, prompts in asked.must.items():
        if near := sum(near_to(prompts.said, searched, NEAR)):
            yield f"{name}: {near} of {len(prompts)} questions are much like questions that a patch is searched on"


def further_questions(family: Family, asked: StudentSplits) -> Mapping[str, PromptSet]:
    """Read the question sets of other sources that *family* names, without questions like those searched on.

    Raises:
        DataError, SourceError: a file is missing or wrong, or nothing of it is left.
    """
    searched = (asked.prior.harmful, asked.harmful.search, asked.prior.harmless, asked.harmless.search)
    near = _threshold(family.harmful, family.near_duplicates)
    return {name: _further(source, searched, near) for name, source in family.further.items()}


def read_split(spec: SplitSpec, near_duplicates: float | None = 1.0) -> Split:
    """Read both parts of a question set, and drop near-duplicates from the part to search on.

    Raises:
        DataError, SourceError: a file is missing or wrong, or a prompt is both searched on and held out.
    """
    searched = tuple((read_source(source), _most(source)) for source in spec.searched)
    threshold = _threshold(spec, near_duplicates)
    return _kept_apart(searched, read_source(spec.report), _most(spec.report), threshold, spec.report.part is not None)


@functools.lru_cache(maxsize=64)
def _require_one_kind(harmful: Split, harmless: Split) -> None:
    """Check that no question is to be refused and to be answered, as where one file is given for both.

    Raises:
        DataError: one is. Who refuses most of such sets, or answers most, would pass on either by what it loses on the
            other.
    """
    refused = {question_key(said) for part in (harmful.search, harmful.report) for said in part.said}
    both = [said for part in (harmless.search, harmless.report) for said in part.said if question_key(said) in refused]
    if both:
        raise DataError(
            f"{harmful.report.name} and {harmless.report.name}: {len(both)} questions are harmful and harmless at "
            f"once, as {both[0][:80]!r}. Remove them from one side, or correct the key that names the wrong file."
        )


@functools.lru_cache(maxsize=64)
def _never_searched(split: Split, lists: tuple[PromptSet, ...]) -> Split:
    """Return *split* without the questions of *lists* in the part to search on."""
    search = split.search
    for prompts in lists:
        search = without_near_duplicates(search, prompts, threshold=1.0)
    return Split(search, split.report)


def _threshold(spec: SplitSpec, near_duplicates: float | None) -> float:
    """Return how similar questions on both sides may be: as set, or as fits the way in which *spec* is split."""
    if near_duplicates is not None:
        return near_duplicates
    return NEAR if spec.report.part else 1.0


def _most(source: PromptSource) -> int | None:
    """Return how many questions of *source* are used; None for all."""
    return source.limit or (MOST_OF_A_SIDE if source.part else None)


# Students of a family share their splits, and to compare thousands of questions takes a second.
@functools.lru_cache(maxsize=64)
def _kept_apart(
    searched: tuple[tuple[PromptSet, int | None], ...],
    report: PromptSet,
    most: int | None,
    near_duplicates: float,
    by_hash: bool,
) -> Split:
    """Return the held-out set, and of each set to search on as many as its limit says that are not near to that."""
    if by_hash:  # of tens of thousands, those are compared that are asked
        report = report.first(most)
    drop = without_kinds_of if by_hash else without_near_duplicates
    kept = []
    for search, limit in searched:
        check_disjoint(search, report)
        if near_duplicates < 1.0:
            search = drop(search, report, near_duplicates)
        kept.append(search.first(limit))
    return Split(in_turn(kept), report.first(most))


def _further(source: PromptSource, searched: Sequence[PromptSet], near_duplicates: float) -> PromptSet:
    """Read the questions of *source*, without those *searched* on and near-duplicates of them."""
    unseen = _unseen(read_source(source), tuple(searched), near_duplicates)
    if source.limit is None and source.set and len(unseen) > MOST_OF_FURTHER:
        return in_hash_order(unseen).first(MOST_OF_FURTHER)
    return unseen.first(source.limit)


@functools.lru_cache(maxsize=64)
def _unseen(prompts: PromptSet, searched: tuple[PromptSet, ...], near_duplicates: float) -> PromptSet:
    """Return *prompts* without those of *searched* and near-duplicates of them."""
    for seen in searched:
        prompts = without_near_duplicates(prompts, seen, near_duplicates)
    return prompts


def _apart(search: PromptSet, prior: int | None, setting: str, most: int) -> tuple[PromptSet, PromptSet]:
    """Split *search* between prior and oracle, which then sees a ranking that only fits the questions of the prior."""
    if prior is None:
        prior = min(most, round(PRIOR_SHARE * len(search))) if len(search) >= FEWEST_SPLIT else 0
    if prior == 0:
        return search, search
    if prior >= len(search):
        raise DataError(
            f"{search.name} holds {len(search)} questions to search on, and {setting} = {prior} leaves none of them to "
            "the oracle. Lower it, or give more questions."
        )
    return search.first(prior), search.after(prior)


def _task_split(spec: SplitSpec) -> Split:
    """Read the questions of a task, each of which needs an answer of at least one word."""
    split = read_split(spec)
    for prompts in (split.search, split.report):
        if unanswered := [prompt.text for prompt in prompts if prompt.answer is None]:
            raise DataError(f'{prompts.name}: the task {unanswered[0]!r} has no "answer". Give it one.')
        if wordless := [prompt.answer for prompt in prompts if not words(str(prompt.answer))]:
            raise DataError(
                f"{prompts.name}: the answer {wordless[0]!r} holds neither a word nor a number, so no answer "
                "could be judged by it. Ask for a word."
            )
    return split


def read_source(source: PromptSource) -> PromptSet:
    """Read a whole source, or the side of it that its `part` names.

    Raises:
        DataError, SourceError: it is missing, cannot be fetched, or is wrong.
    """
    prompts = read_prompts(
        resolve_prompts(source),
        only=source.only,
        columns=_columns(source),
        once_each=source.set is not None or source.part is not None,
    )
    return side_of(prompts, source.part) if source.part else prompts


def _columns(source: PromptSource) -> Columns:
    """Return what is read of a table. A dataset of the hub was stored with its text in `text`."""
    where = {name: (value,) if isinstance(value, str) else value for name, value in source.where.items()}
    return Columns(
        text="" if is_dataset(source) else source.column or "",
        answer=source.answer or "",
        where=tuple((name, tuple(map(str.casefold, values))) for name, values in sorted(where.items())),
    )
