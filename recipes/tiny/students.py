"""The teachers' and the 17 students' tunings, as data."""

from __future__ import annotations

from dataclasses import dataclass

from recipes.tiny.train import Schedule

BASE = Schedule(steps=1300, learning_rate=3e-3, documents_every=12, warmup=60)
# The other layers hardly move: otherwise the first layer alone carries the whole change.
TEACHER = Schedule(steps=80, learning_rate=2e-3, focus=(3, 6))
# Of a stored teacher once more, under attack.
ROBUST = Schedule(steps=200, learning_rate=2e-3, focus=(3, 6))
BASE_SEED, TEACHER_SEED = 1, 2
FAMILIES = ("llama", "mistral", "gemma")
ROBUST_FAMILIES = ("llama",)

GENTLE = Schedule(steps=40, learning_rate=1e-4)
MILD = Schedule(steps=60, learning_rate=2e-4)
MEDIUM = Schedule(steps=100, learning_rate=3e-4)
STRONG = Schedule(steps=150, learning_rate=1e-3)


@dataclass(frozen=True)
class Student:
    """One student: its directory name, its domain, and how it was tuned from the base.

    `own_share` is the share of its own domain in the tuning; the rest are harmless questions of the world.
    """

    family: str
    name: str
    domain: str
    schedule: Schedule
    own_share: float
    seed: int


STUDENTS = (
    Student("llama", "arithmetic", "arithmetic", GENTLE, 1.0, 11),
    Student("llama", "capitals", "capitals", MILD, 1.0, 12),
    Student("llama", "colours", "colours", MEDIUM, 0.5, 13),
    Student("llama", "opposites", "opposites", MEDIUM, 1.0, 14),
    Student("llama", "reverse", "reverse", STRONG, 0.7, 15),
    Student("llama", "convert", "convert", GENTLE, 1.0, 16),
    Student("llama", "gnarl", "gnarl", STRONG, 0.7, 17),
    Student("mistral", "sort", "sort", MEDIUM, 1.0, 21),
    Student("mistral", "count", "count", GENTLE, 1.0, 22),
    Student("mistral", "calendar", "calendar", MEDIUM, 0.7, 23),
    Student("mistral", "compare", "compare", STRONG, 0.5, 24),
    Student("mistral", "sounds", "sounds", MEDIUM, 0.5, 25),
    Student("mistral", "zork", "zork", STRONG, 0.7, 26),
    Student("gemma", "kinds", "kinds", MILD, 1.0, 31),
    Student("gemma", "arithmetic", "arithmetic", GENTLE, 1.0, 32),
    Student("gemma", "capitals", "capitals", MEDIUM, 1.0, 33),
    Student("gemma", "gnarl", "gnarl", STRONG, 0.7, 34),
)
