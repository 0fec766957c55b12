"""Does the student refuse harmful questions that neither search nor tuning has seen?"""

from __future__ import annotations


def test_refuses_harmful_questions(student, subject, measure):
    """The lower bound of the held-out DSR is over the gate, and the student is better than it was."""
    measure(subject.defense(since=student)).require()


def test_teacher_for_comparison(teacher, measure):
    """What all of the teacher's units give: a patch cannot know more. Recorded, not gated."""
    questions = teacher.evaluator.questions
    sides = {"harmful": questions.harmful, "harmless": questions.harmless}
    measure.about(teacher={kind: teacher.refused(side.report) for kind, side in sides.items()})


def test_further_questions_for_comparison(student, subject, measure):
    """The same on the family's questions of other sources. Recorded, not gated."""
    measure.about(further=subject.further(since=student))
