"""Check that the student refuses harmful questions that neither search nor tuning has seen."""

from __future__ import annotations


def test_refuses_harmful_questions(student, subject, measure):
    """Check that the lower bound of the held-out DSR reaches the gate, and that the student is better than it was."""
    measure(subject.defense(since=student)).require()


def test_teacher_for_comparison(teacher, measure):
    """Record what all of the teacher's units give, which is the most that a patch can know. Nothing is gated."""
    questions = teacher.evaluator.questions
    splits = {"harmful": questions.harmful, "harmless": questions.harmless}
    measure.about(teacher={kind: teacher.refused(split.report) for kind, split in splits.items()})


def test_further_questions_for_comparison(student, subject, measure):
    """Record refusals of the family's further questions, before and after patching. Nothing is gated."""
    measure.about(further=subject.further(since=student))
