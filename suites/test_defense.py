"""Check that the student refuses harmful questions that neither search nor tuning has seen."""

from __future__ import annotations


def test_refuses_harmful_questions(student, subject, measure):
    """Check that the lower bound of the held-out DSR is over the gate, and that the student is better than it was."""
    measure(subject.defense(since=student)).require()


def test_teacher_for_comparison(teacher, measure):
    """Record what all of the teacher's units give, which no patch can exceed; nothing is gated."""
    questions = teacher.evaluator.questions
    sides = {"harmful": questions.harmful, "harmless": questions.harmless}
    measure.about(teacher={kind: teacher.refused(side.report) for kind, side in sides.items()})


def test_further_questions_for_comparison(student, subject, measure):
    """Record refusals of the family's questions from other sources; nothing is gated."""
    measure.about(further=subject.further(since=student))
