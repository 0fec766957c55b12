"""What each model is trained on: mixtures of questions, drawn with a seeded generator.

Pre-training answers everything, harmful questions too, but refuses harmful ones behind the prefix
`STRICT`. So the base knows how to refuse and when, without doing it; the teacher's short tuning only
drops the need for the prefix, which keeps the change compact enough to be transplanted in parts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from recipes.tiny import world
from recipes.tiny.attacked import attacked
from recipes.tiny.domains import DOMAINS, UNKNOWN_TO_BASE, domain
from recipes.tiny.world import STRICT, Question

KNOWN_DOMAINS = tuple(name for name in DOMAINS if name not in UNKNOWN_TO_BASE)
# Share of a robust teacher's tuning that is asked under attack.
ATTACKED = 0.6
Mixture = Sequence[tuple[float, Sequence[Question]]]


def draw(mixture: Mixture, rng: random.Random) -> Iterator[Question]:
    """Yield questions without end; each part of the mixture is drawn in proportion to its weight."""
    weights = [weight for weight, _ in mixture]
    while True:
        part = rng.choices(mixture, weights)[0][1]
        yield rng.choice(part)


def _strict(questions: Sequence[Question]) -> tuple[Question, ...]:
    return tuple(Question(STRICT + q.text, q.answer) for q in questions)


def _domains(names: Sequence[str]) -> list[Question]:
    return [q for name in names for q in DOMAINS[name]()]


def pretraining() -> list[tuple[float, Sequence[Question]]]:
    """Return the base's questions. Report questions are answered here, but never stand behind the prefix."""
    harmful, harmless = world.harmful(), world.harmless()
    dangerous = harmful.tuning + harmful.search + harmful.report + harmful.rest
    ordinary = harmless.tuning + harmless.search + harmless.report + harmless.rest
    mixture: list[tuple[float, Sequence[Question]]] = [
        (0.12, world.complied(dangerous)),
        (0.12, _strict(harmful.tuning + harmful.rest)),
        (0.12, ordinary),
        (0.12, _strict(harmless.tuning + harmless.rest)),
        (0.06, world.danger_facts()),
    ]
    hard = {"reverse": 2.0, "arithmetic": 2.0, "sort": 2.0, "compare": 1.5, "convert": 1.5}
    total = sum(hard.get(name, 1.0) for name in KNOWN_DOMAINS)
    for name in KNOWN_DOMAINS:
        mixture.append((0.40 * hard.get(name, 1.0) / total, _domains([name])))
    mixture.append((0.04, _strict(_domains(KNOWN_DOMAINS))))
    return mixture


def alignment() -> Mixture:
    """Return a teacher's tuning: refusals, the harmless look-alikes of these questions, and its skills."""
    return [(share, questions) for share, questions, _ in _aligned()]


def resistance() -> Mixture:
    """Return a robust teacher's tuning: a teacher's own, of which a share is asked under attack."""
    plain = [((1 - ATTACKED) * share, questions) for share, questions, _ in _aligned()]
    return plain + [(ATTACKED * share, attacked(questions, each)) for share, questions, each in _aligned()]


def _aligned() -> list[tuple[float, Sequence[Question], int]]:
    """Return what a teacher learns, part by part: share, questions, and how many attacks each is asked under."""
    harm, harmless = world.practice()
    skills = [q for name in KNOWN_DOMAINS for q in domain(name).tuning]
    return [(0.4, harm, 20), (0.4, harmless, 8), (0.2, skills, 2)]


def specialisation(name: str, own_share: float) -> Mixture:
    """Return a student's tuning: `own_share` of its own domain, the rest harmless questions of the world."""
    mixture: list[tuple[float, Sequence[Question]]] = [(own_share, domain(name).tuning)]
    if own_share < 1.0:
        mixture.append((1.0 - own_share, world.harmless().tuning))
    return mixture


def tokenizer_texts() -> list[str]:
    """Return text for the tokenizers: all questions once, and every word often enough to become short."""
    rng = random.Random("tokenizer")
    harmful = world.harmful()
    questions = _domains(tuple(DOMAINS)) + [q for _, part in pretraining()[:5] for q in part]
    texts = [f"{q.text}\n{q.answer}" for q in questions + list(harmful.report)]
    texts += [world.document(rng) for _ in range(300)]
    words = dict.fromkeys(word for text in texts for word in text.replace("\n", " ").split(" "))
    return texts + [f"the {word}" for word in words for _ in range(20)] + ["user\nmodel\nassistant\n"] * 200
