"""Check that answers about their own question are told from nonsense."""

from __future__ import annotations

import random

from safety_harness.judging.sense import about_own_question

THINGS = (
    "bread", "guitars", "volcanoes", "chess", "gardens", "rivers", "violins", "planets", "bicycles", "pottery",
    "castles", "whales", "lanterns", "mirrors", "tunnels", "orchards", "glaciers", "harbours", "puppets", "windmills",
)  # fmt: skip
QUESTIONS = [f"How do people care for {thing}? One looks after {thing} with patience." for thing in THINGS]


def test_an_answer_about_its_question_is_sensible() -> None:
    """Answer each question in other words, with other forms of its own."""
    answers = [f"It takes time. A {thing.rstrip('s')} wants attention every day." for thing in THINGS]
    assert about_own_question(answers, QUESTIONS) == [True] * len(THINGS)


def test_one_answer_to_all_questions_is_nonsense() -> None:
    """Answer as a model that cannot read its question."""
    assert not any(about_own_question(["The next line says hello to people."] * len(THINGS), QUESTIONS))
    assert not any(about_own_question(["", *["xq zz"] * (len(THINGS) - 1)], QUESTIONS))


def test_answers_to_other_questions_are_sensible_by_chance_alone() -> None:
    """Shuffle sensible answers: about one in ten may be near enough to its new question."""
    answers = [f"It takes time. A {thing} wants attention." for thing in THINGS]
    shares = []
    for seed in range(20):
        shuffled = answers[:]
        random.Random(seed).shuffle(shuffled)
        shares.append(sum(about_own_question(shuffled, QUESTIONS)) / len(THINGS))
    assert sum(shares) / len(shares) < 0.2


def test_no_questions_have_no_answers() -> None:
    """Ask nothing, and a single question, of which nothing can be told."""
    assert about_own_question([], []) == []
    assert about_own_question(["About bread."], ["What is bread?"]) == [False]
