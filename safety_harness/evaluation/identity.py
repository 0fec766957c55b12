"""Tell one measurement from another: everything that an answer depends on."""

from __future__ import annotations

from safety_harness.files import sha256_text
from safety_harness.judging.judge import RuleJudge
from safety_harness.models.generate import DECODING, Generator
from safety_harness.registry.schema import Family
from safety_harness.registry.splits import StudentSplits
from safety_harness.weights.checkpoint import Checkpoint


def measurement_identity(
    family: Family,
    questions: StudentSplits,
    judge: RuleJudge,
    generator: Generator,
    *,
    student: Checkpoint,
    teacher: Checkpoint,
    ancestor: Checkpoint | None,
) -> dict[str, object]:
    """Return everything that a measurement depends on, as plain values.

    Two measurements are comparable if all of these are equal. Patches are cached by them.
    """
    return {
        "student": student.fingerprint,
        "teacher": teacher.fingerprint,
        "ancestor": ancestor and ancestor.fingerprint,
        "questions": questions.hashes,
        "judge": judge.fingerprint,
        "decoding": DECODING,
        "dtype": family.dtype,
        "device": generator.model.device.type,
        "batch_size": generator.batch_size,
        "max_new_tokens": family.max_new_tokens,
        "screen_tokens": family.screen_tokens,
        "template": sha256_text(generator.chat.template or ""),
    }
