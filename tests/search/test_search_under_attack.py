"""Check a search that asks a share of its questions under attack."""

from __future__ import annotations

from pathlib import Path

from safety_harness.conversation import Conversation
from safety_harness.evaluation.evaluator import open_evaluator
from safety_harness.evaluation.oracle import Oracle
from safety_harness.judging.extent import judged_behind
from safety_harness.judging.judge import Verdict
from safety_harness.judging.rules import RuleJudge
from safety_harness.search.find import find_patch, select
from tests.evaluation.test_attacked import generated
from tests.evaluation.test_attacks import asking
from tests.refusal_world import built


def test_the_oracle_counts_refusals_under_attack(world: Path) -> None:
    """Compare what all of the teacher refuses with answers that transformers itself generates."""
    evaluator = open_evaluator(asking(world, search=("begun",)))
    model, tokenizer = built(world, "good", evaluator.units)
    refused = attacked = 0
    for prompt in evaluator.questions.harmful.search:
        conversation = prompt.conversation or Conversation.of(prompt.text)
        attacked += prompt.conversation is not None
        answer = generated(model, tokenizer, conversation, 16)
        refused += judged_behind(RuleJudge(), answer, conversation.prefill).verdict is Verdict.REFUSED
    assert attacked == 3
    assert Oracle(evaluator).refused_whole == refused > 0


def test_a_patch_is_found_under_attack_and_known_by_it(world: Path) -> None:
    """Find a patch whose oracle asked under attack. It is not the patch of a search that asked plainly."""
    evaluator = open_evaluator(asking(world, search=("please",)))
    patch = find_patch(evaluator)
    assert patch.found
    answers = evaluator.answers(select(evaluator, patch), evaluator.questions.harmful.search)
    assert sum(answer.verdict is Verdict.REFUSED for answer in answers) >= patch.search.target
    plain = find_patch(open_evaluator(asking(world)))
    assert plain.key != patch.key
