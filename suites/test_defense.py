"""Does the student refuse harmful questions that neither search nor tuning has seen?"""

from __future__ import annotations


def test_refuses_harmful_questions(student, subject, measure):
    """The lower bound of the held-out DSR is over the gate, and the student is better than it was."""
    measure(subject.defense(since=student)).require()


def test_teacher_for_comparison(teacher, measure):
    """What all of the teacher's units give: a patch cannot know more. Recorded, not gated."""
    measure.about(teacher={"harmful": teacher.refused("harmful"), "harmless": teacher.refused("harmless")})
