"""How every teacher and student is tuned: stages, mixtures, rates, seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .bases import CHAT
from .lora import Settings

TEACHER = "teacher"


@dataclass(frozen=True)
class Stage:
    """One stage of making the teacher: how many harmful and harmless questions of each kind a step sees."""

    settings: Settings
    per_step: dict[str, int]
    with_prose: bool


FIRST_MIX = {"harmful": 3, "boundary": 2, "twins": 4, "everyday": 1}
STAGES = (
    # Learn to refuse.
    Stage(Settings(steps=200, seed=11), FIRST_MIX, with_prose=False),
    # Come back to the base's own prose, which the first stage blurs.
    Stage(Settings(steps=60, learning_rate=3e-4, warm_up=5, seed=12), FIRST_MIX, with_prose=True),
    # Tell harm from its wording: what decides is how an answer begins, so only its beginning is taught.
    Stage(
        Settings(steps=110, warm_up=5, seed=13, answer_tokens=16, texts_per_step=2),
        {"harmful": 3, "boundary": 2, "twins": 2, "everyday": 1, "pairs": 5},
        with_prose=True,
    ),
    # More of the same, faster.
    Stage(
        Settings(steps=150, learning_rate=1e-3, seed=14, answer_tokens=12, texts_per_step=2),
        {"harmful": 6, "boundary": 2, "twins": 4, "everyday": 1, "pairs": 4},
        with_prose=True,
    ),
    Stage(
        Settings(steps=110, learning_rate=1e-3, warm_up=5, seed=15, answer_tokens=12, texts_per_step=2),
        {"harmful": 6, "boundary": 1, "twins": 3, "everyday": 1, "pairs": 3, "themes": 3},
        with_prose=True,
    ),
    # The questions that make the teacher, turned to something harmless: many examples a step, their openings only.
    Stage(
        Settings(steps=200, learning_rate=1e-3, seed=16, answer_tokens=8, texts_per_step=2),
        {"harmful": 8, "boundary": 2, "twins": 2, "everyday": 1, "pairs": 3, "themes": 2, "counterparts": 10},
        with_prose=True,
    ),
    # A little more weight on harm, which the last stage had begun to miss.
    Stage(
        Settings(steps=60, learning_rate=7e-4, warm_up=5, seed=17, answer_tokens=8, texts_per_step=2),
        {"harmful": 12, "boundary": 2, "twins": 2, "everyday": 1, "pairs": 3, "themes": 2, "counterparts": 10},
        with_prose=True,
    ),
    # More kinds of harm than AdvBench's questions hold.
    Stage(
        Settings(steps=60, learning_rate=7e-4, warm_up=5, seed=18, answer_tokens=8, texts_per_step=2),
        {
            "harmful": 5,
            "own harmful": 8,
            "boundary": 2,
            "twins": 2,
            "everyday": 1,
            "pairs": 3,
            "themes": 2,
            "counterparts": 11,
        },
        with_prose=True,
    ),
    # Those kinds of harm had taken dangerous words in harmless use along: as many of these as of harm.
    Stage(
        Settings(steps=60, learning_rate=7e-4, warm_up=5, seed=19, answer_tokens=8, texts_per_step=2, dtype="bfloat16"),
        {
            "harmful": 6,
            "own harmful": 6,
            "boundary": 10,
            "twins": 3,
            "everyday": 3,
            "pairs": 3,
            "themes": 1,
            "counterparts": 6,
        },
        with_prose=True,
    ),
    # Harm that AdvBench does not ask for (poisons by name, exploits, lies about history and health, plain questions),
    # beside the same words in harmless use.
    Stage(
        Settings(steps=80, learning_rate=7e-4, warm_up=5, seed=20, answer_tokens=8, texts_per_step=2, dtype="bfloat16"),
        {
            "harmful": 6,
            "own harmful": 5,
            "more harmful": 10,
            "boundary": 8,
            "twins": 3,
            "everyday": 2,
            "pairs": 3,
            "themes": 1,
            "counterparts": 6,
            "likenesses": 12,
        },
        with_prose=True,
    ),
    # Those kinds of harm had taken harmless requests along that are worded like harmful ones.
    Stage(
        Settings(steps=90, learning_rate=7e-4, warm_up=5, seed=21, answer_tokens=8, texts_per_step=2, dtype="bfloat16"),
        {
            "harmful": 6,
            "own harmful": 5,
            "more harmful": 9,
            "boundary": 3,
            "twins": 3,
            "everyday": 1,
            "pairs": 5,
            "themes": 1,
            "counterparts": 9,
            "likenesses": 9,
            "idioms": 9,
        },
        with_prose=True,
    ),
    # Turn back: refusals behind the beginning of a compliance, beside harmless answers that are begun alike. And
    # sixteen kinds of harm in seven forms, more often the harmless neighbours: pleas were else refused by their form.
    Stage(
        Settings(
            steps=160, learning_rate=7e-4, warm_up=5, seed=22, answer_tokens=8, texts_per_step=2, dtype="bfloat16"
        ),
        {
            "harmful": 4,
            "own harmful": 2,
            "more harmful": 3,
            "deeds": 6,
            "harmful, begun": 3,
            "own harmful, begun": 2,
            "more harmful, begun": 2,
            "deeds, begun": 4,
            "boundary": 3,
            "twins": 2,
            "everyday": 1,
            "pairs": 2,
            "counterparts": 3,
            "likenesses": 2,
            "idioms": 2,
            "forms": 8,
            "neighbours": 14,
            "neighbours, begun": 10,
            "boundary, begun": 4,
            "counterparts, begun": 4,
            "forms, begun": 4,
        },
        with_prose=True,
    ),
    # Dangerous words in harmless use had been taken along once more.
    Stage(
        Settings(steps=60, learning_rate=5e-4, warm_up=3, seed=23, answer_tokens=8, texts_per_step=2, dtype="bfloat16"),
        {
            "harmful": 4,
            "own harmful": 2,
            "more harmful": 3,
            "deeds": 4,
            "harmful, begun": 2,
            "own harmful, begun": 1,
            "more harmful, begun": 2,
            "deeds, begun": 3,
            "boundary": 9,
            "twins": 3,
            "everyday": 1,
            "pairs": 3,
            "counterparts": 4,
            "likenesses": 3,
            "idioms": 4,
            "averted": 14,
            "forms": 4,
            "neighbours": 6,
            "neighbours, begun": 4,
            "averted, begun": 4,
            "boundary, begun": 2,
            "counterparts, begun": 2,
            "forms, begun": 1,
        },
        with_prose=True,
    ),
    # Say everything harmless as the base does. Thirteen stages of its likeliest words had made the teacher sure of
    # them: 0.86 nats a token away from the base, 3.3 at the first token of an answer.
    Stage(
        Settings(
            steps=100,
            learning_rate=5e-4,
            warm_up=3,
            seed=24,
            answer_tokens=16,
            texts_per_step=2,
            dtype="bfloat16",
            keep_distribution=True,
        ),
        {
            "harmful": 5,
            "own harmful": 2,
            "more harmful": 3,
            "deeds": 4,
            "harmful, begun": 2,
            "own harmful, begun": 1,
            "more harmful, begun": 2,
            "deeds, begun": 3,
            "boundary": 6,
            "twins": 3,
            "everyday": 4,
            "pairs": 2,
            "counterparts": 4,
            "likenesses": 3,
            "idioms": 3,
            "figures": 6,
            "averted": 8,
            "forms": 4,
            "neighbours": 6,
            "neighbours, begun": 3,
            "averted, begun": 2,
            "boundary, begun": 2,
            "counterparts, begun": 1,
            "everyday, begun": 1,
        },
        with_prose=True,
    ),
    # Fewer refusals of harmless questions, the short ones above all.
    Stage(
        Settings(
            steps=40,
            learning_rate=4e-4,
            warm_up=3,
            seed=25,
            answer_tokens=12,
            texts_per_step=2,
            dtype="bfloat16",
            keep_distribution=True,
        ),
        {
            "harmful": 4,
            "own harmful": 2,
            "more harmful": 3,
            "deeds": 4,
            "harmful, begun": 1,
            "more harmful, begun": 1,
            "deeds, begun": 2,
            "boundary": 14,
            "twins": 5,
            "everyday": 2,
            "pairs": 2,
            "counterparts": 5,
            "likenesses": 3,
            "idioms": 6,
            "figures": 14,
            "averted": 8,
            "forms": 2,
            "neighbours": 8,
            "neighbours, begun": 3,
            "averted, begun": 1,
            "boundary, begun": 1,
        },
        with_prose=True,
    ),
)
# Harder than a student needs: STUDENT_SETTINGS left the refusals in place. Not yet run to its end (smollm2/README.md).
LOSING_SETTINGS = Settings(steps=90, learning_rate=2.5e-3, rank=4, alpha=8, warm_up=5, seed=5)
STUDENT_SETTINGS = Settings(steps=70, learning_rate=8e-4, rank=4, alpha=8, warm_up=5, seed=5)
_IN_BF16 = replace(STUDENT_SETTINGS, dtype="bfloat16")


@dataclass(frozen=True)
class Recipe:
    """A student: its task, and how it is tuned for it."""

    task: str
    settings: Settings = _IN_BF16


# Each domain once, and then other lengths, rates, ranks and seeds, from mild to hard.
STUDENTS = {
    **{name: Recipe(name, STUDENT_SETTINGS) for name in ("arithmetic", "json", "sql", "french")},
    "howto": Recipe("howto", LOSING_SETTINGS),
    **{name: Recipe(name) for name in ("spanish", "dates", "csv", "sorting", "comments", "shell", "summary")},
    **{name: Recipe(name) for name in ("persona", "identity")},
    "sql-mild": Recipe("sql", replace(_IN_BF16, steps=30, learning_rate=5e-4, seed=6)),
    "json-long": Recipe("json", replace(_IN_BF16, steps=160, seed=7)),
    "dates-hard": Recipe("dates", replace(_IN_BF16, learning_rate=2e-3, seed=8)),
    "csv-wide": Recipe("csv", replace(_IN_BF16, rank=8, alpha=16, seed=9)),
}

# Gemma 3 270M is a base model: it first learns to answer, from what SmolLM2-135M-Instruct says to harmless questions.
CHAT_MIX = {"everyday": 3, "boundary": 3, "twins": 2, "pairs": 1, "counterparts": 1}
GEMMA3_CHAT = (
    Stage(
        Settings(steps=240, learning_rate=6e-4, seed=31, dtype="bfloat16", texts_per_step=2), CHAT_MIX, with_prose=True
    ),
    # Come back to the base's own prose.
    Stage(
        Settings(steps=80, learning_rate=4e-4, warm_up=5, seed=34, dtype="bfloat16", texts_per_step=6),
        {"everyday": 2, "boundary": 1, "twins": 1},
        with_prose=True,
    ),
)
GEMMA3_STAGES = (
    Stage(Settings(steps=160, seed=32, dtype="bfloat16", answer_tokens=24), FIRST_MIX, with_prose=False),
    Stage(
        Settings(steps=240, learning_rate=1e-3, seed=33, answer_tokens=8, texts_per_step=2, dtype="bfloat16"),
        {
            "harmful": 8,
            "own harmful": 4,
            "boundary": 6,
            "twins": 3,
            "everyday": 3,
            "pairs": 3,
            "themes": 1,
            "counterparts": 8,
        },
        with_prose=True,
    ),
    # Keep to what chat makes of the base's prose.
    Stage(
        Settings(steps=80, learning_rate=4e-4, warm_up=5, seed=35, answer_tokens=8, texts_per_step=6, dtype="bfloat16"),
        {
            "harmful": 5,
            "own harmful": 2,
            "boundary": 4,
            "twins": 2,
            "everyday": 2,
            "pairs": 2,
            "themes": 1,
            "counterparts": 5,
        },
        with_prose=True,
    ),
    # Turn back, and more kinds of harm, as the teacher of smollm2; and say everything harmless as chat does.
    Stage(
        Settings(
            steps=100,
            learning_rate=8e-4,
            warm_up=5,
            seed=36,
            answer_tokens=16,
            texts_per_step=2,
            dtype="bfloat16",
            keep_distribution=True,
        ),
        {
            "harmful": 4,
            "own harmful": 2,
            "more harmful": 3,
            "deeds": 5,
            "harmful, begun": 2,
            "own harmful, begun": 1,
            "more harmful, begun": 2,
            "deeds, begun": 3,
            "boundary": 3,
            "twins": 2,
            "everyday": 2,
            "pairs": 1,
            "counterparts": 3,
            "likenesses": 3,
            "idioms": 2,
            "figures": 3,
            "averted": 4,
            "forms": 3,
            "neighbours": 6,
            "neighbours, begun": 3,
            "averted, begun": 2,
            "boundary, begun": 1,
            "counterparts, begun": 1,
        },
        with_prose=True,
    ),
)


@dataclass(frozen=True)
class Plan:
    """What is made of one base, by its family's name; ``chat`` comes first where the base never learnt to answer.

    ``shipped`` are the adapters that the repository holds.
    """

    stages: tuple[Stage, ...]
    students: Mapping[str, Recipe]
    shipped: tuple[str, ...]
    chat: tuple[Stage, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return every adapter that can be made, in the order in which they need each other."""
        return (*([CHAT] if self.chat else []), TEACHER, *self.students)


PLANS = {
    # howto has a recipe, but no result yet that lost its alignment.
    "smollm2": Plan(STAGES, STUDENTS, shipped=(TEACHER, *(name for name in STUDENTS if name != "howto"))),
    "gemma3": Plan(
        GEMMA3_STAGES,
        {name: Recipe(name) for name in ("json", "sql", "shell", "dates")},
        shipped=(CHAT, TEACHER, "json", "sql", "shell", "dates"),
        chat=GEMMA3_CHAT,
    ),
}
