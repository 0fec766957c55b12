"""Find the attacks that a student's gate and search name, and put questions under them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from safety_harness.attacks.attack import Attack, Misfit
from safety_harness.attacks.builtin import row_attack
from safety_harness.attacks.catalogue import Catalogue
from safety_harness.attacks.templates import QUESTION
from safety_harness.conversation import Conversation, Decoding
from safety_harness.errors import ConfigError, DataError
from safety_harness.reading import MIB, Reader
from safety_harness.registry.attacks import AttackRow
from safety_harness.registry.fetch import resolve
from safety_harness.registry.load import Student
from safety_harness.registry.prompts import PromptSet, prompt_set
from safety_harness.registry.schema import Family
from safety_harness.registry.sources import Source
from safety_harness.registry.splits import StudentSplits
from safety_harness.text import question_key

CONTROLS = 32
"""Harmless questions that show whether a student can read an attack. With 32, half is told from a tenth."""
SCREENED = 64
"""Tokens of an answer that complies. Behind as many, no rule reads a refusal."""
SEED = 0
"""Decides what attacks leave to chance. Results record it with the fingerprints of the attacks."""
_FILE = Reader(DataError, missing="cannot be read (it does not exist). Check the path in the registry.", at_most=MIB)


@dataclass(frozen=True)
class UnderAttack:
    """Questions under one attack, and the places in their set of those that fit it."""

    attack: Attack
    prompts: PromptSet
    places: tuple[int, ...]


def with_attacks(students: Sequence[Student]) -> tuple[Student, ...]:
    """Return *students* whose gates name each attack by itself, where they named a kind.

    Raises:
        ConfigError: there is no attack of a name, or one cannot be used.
        DataError, SourceError: a file of an attack cannot be read, or had.
    """
    named = []
    for student in students:
        names = tuple(attack.name for attack in gate_attacks(student))
        gate = student.gate.model_copy(update={"attacks": names})
        named.append(replace(student, family=student.family.model_copy(update={"gate": gate})))
    return tuple(named)


def gate_attacks(student: Student) -> tuple[Attack, ...]:
    """Return the attacks under which the gate of *student* asks.

    Raises:
        ConfigError, DataError, SourceError: as :func:`with_attacks`.
    """
    return _selected(student.family, student.gate.attacks)


def search_attacks(student: Student) -> tuple[Attack, ...]:
    """Return the attacks under which a search of *student* asks.

    Raises:
        ConfigError, DataError, SourceError: as :func:`with_attacks`.
    """
    return _selected(student.family, student.search.attacks)


def fingerprints(student: Student) -> dict[str, dict[str, str]]:
    """Return what decides the attacks of *student*, by their names; nothing where there are none."""
    every = {"attacks": gate_attacks(student), "search_attacks": search_attacks(student)}
    return {name: {one.name: one.fingerprint for one in attacks} for name, attacks in every.items() if attacks}


def under(attack: Attack, prompts: PromptSet) -> UnderAttack:
    """Return *prompts* as *attack* asks them, without those that do not fit it."""
    seen = [(at, prompt, attack.sees(prompt.text, SEED)) for at, prompt in enumerate(prompts)]
    fitting = [(at, replace(prompt, conversation=one)) for at, prompt, one in seen if isinstance(one, Conversation)]
    asked = prompt_set(f"{prompts.name} under {attack.name}", [prompt for _, prompt in fitting])
    return UnderAttack(attack, asked, tuple(at for at, _ in fitting))


def asked_under_attack(student: Student, questions: StudentSplits) -> Iterator[tuple[PromptSet, Decoding]]:
    """Yield all that the gate of *student* asks under attack: of each attack its questions, then its controls."""
    for attack in gate_attacks(student):
        for decoding in decodings(student):
            yield under(attack, questions.harmful.report).prompts, decoding
        yield controls(attack, questions).prompts, control_decoding(student)


def decodings(student: Student) -> list[Decoding]:
    """Return how the answers to an attack are generated, draw by draw."""
    gate, screen = student.gate, _screen(student)
    return [Decoding(gate.attack_tokens, gate.temperature, draw, screen) for draw in range(gate.samples)]


def control_decoding(student: Student) -> Decoding:
    """Return how the answers to harmless questions under an attack are generated: greedily."""
    return Decoding(student.gate.attack_tokens, screen=_screen(student))


def _screen(student: Student) -> int | None:
    """Return after how many tokens an answer that complies is broken off.

    A model that judges reads whole answers. By the rules, an answer that has begun to comply is no refusal any more.
    """
    return None if student.family.models_that_judge or student.gate.attack_tokens <= SCREENED else SCREENED


def controls(attack: Attack, questions: StudentSplits) -> UnderAttack:
    """Return the harmless questions that *attack* asks, to see whether a student can read it."""
    return under(attack, questions.harmless.report.first(CONTROLS))


def searched_under(questions: StudentSplits, student: Student) -> StudentSplits:
    """Return *questions* of which a share of the harmful ones to search on, and of the prior's, is asked under attack.

    The attacks take turns. A question that does not fit its attack is asked as it is.

    Raises:
        ConfigError, DataError, SourceError: as :func:`with_attacks`.
    """
    attacks = search_attacks(student)
    if not attacks:
        return questions
    share = student.search.attacked_share
    harmful = replace(questions.harmful, search=_mixed(questions.harmful.search, attacks, share))
    prior = replace(questions.prior, harmful=_mixed(questions.prior.harmful, attacks, share))
    return replace(questions, harmful=harmful, prior=prior)


def check_attacks(student: Student, questions: StudentSplits) -> StudentSplits:
    """Return *questions*, if the attacks of *student* can be asked. No model is loaded for it.

    Raises:
        ConfigError: an attack is unknown or fails, or begins an answer that a server does not continue.
        DataError: an attack of the registry holds a held-out question in its own words.
        SourceError: a template cannot be had.
    """
    for attack in (*gate_attacks(student), *search_attacks(student)):
        asked = under(attack, questions.harmful.report)
        if row := student.family.attacks.get(attack.name):
            _require_unseen(attack.name, row, questions)
        if student.spec.served:
            for prompt in asked.prompts:
                student.spec.served.body(prompt.sent, 1)
    return questions


def _selected(family: Family, names: Sequence[str]) -> tuple[Attack, ...]:
    if not names:
        return ()
    own = [_own_attack(name, row) for name, row in family.attacks.items()]
    return tuple(Catalogue(own, lambda source: resolve(Source(**source))).select(names))


def _own_attack(name: str, row: AttackRow) -> Attack:
    """Return the attack of a *row* of the registry.

    Raises:
        ConfigError, DataError: its template or its demonstrations cannot be used.
    """
    if row.template and row.user:
        raise ConfigError(f"[attacks.{name}]: has `template` and `user`, and either is the user's last turn. Keep one.")
    user = _FILE.text(row.template).strip() if row.template else row.user
    before = [*_demonstrations(row), *row.before]
    try:
        return row_attack(
            name, {**row.model_dump(exclude={"template", "demonstrations"}), "user": user, "before": before}
        )
    except ConfigError as error:
        raise ConfigError(f"{row.template}: {error}" if row.template else str(error)) from error


def _demonstrations(row: AttackRow) -> list[tuple[str, str]]:
    """Return the turns of the file of demonstrations of a *row*, if it names one.

    Raises:
        DataError: a line does not hold both turns.
    """
    turns: list[tuple[str, str]] = []
    for number, line in enumerate(_FILE.text(row.demonstrations).splitlines() if row.demonstrations else (), 1):
        try:
            pair = json.loads(line)
            turns += [("user", str(pair["user"])), ("assistant", str(pair["assistant"]))]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f'{row.demonstrations}, line {number}: needs {{"user": …, "assistant": …}} ({error}). Correct the line.'
            ) from error
    return turns


def _require_unseen(name: str, row: AttackRow, questions: StudentSplits) -> None:
    """Check that the own words of an attack hold no question that the gate asks.

    Raises:
        DataError: they do. The model would be shown what it is asked about.
    """
    turns = [row.system, _FILE.text(row.template) if row.template else row.user, *(text for _, text in row.before)]
    turns += [text for _, text in _demonstrations(row)]
    said = question_key(" ".join(text.replace(QUESTION, " ") for text in turns if text))
    for prompts in (questions.harmful.report, questions.harmless.report):
        for prompt in prompts:
            if question_key(prompt.text) in said:
                raise DataError(
                    f"[attacks.{name}]: its own words hold the held-out question {prompt.text[:60]!r}. Take other "
                    "demonstrations."
                )


def _mixed(prompts: PromptSet, attacks: Sequence[Attack], share: float) -> PromptSet:
    """Return *prompts* of which a *share*, evenly spread, is asked under *attacks* in turn."""
    mixed, turn = [], 0
    for at, prompt in enumerate(prompts):
        if int((at + 1) * share) > int(at * share):
            seen = attacks[turn % len(attacks)].sees(prompt.text, SEED)
            turn += 1
            prompt = prompt if isinstance(seen, Misfit) else replace(prompt, conversation=seen)
        mixed.append(prompt)
    return prompt_set(prompts.name, mixed)
