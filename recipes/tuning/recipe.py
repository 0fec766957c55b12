"""Make an adapter: `python -m recipes.tuning.recipe NAME --family FAMILY --wheels DIR --work DIR`.

`--wheels` is a folder with the wheels of `bases.py` and pyrit 1.1.0's; `--work` receives the dequantised base model and
the base's own answers, both reused by later runs. The adapter goes to the family's adapters/<name>/, or to `--out`.
Everything is seeded and runs on one thread, so the same machine makes the same adapter.

The only answers to harmful questions anywhere in these recipes are refusals.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from safety_harness.files import sha256_text
from safety_harness.judging.judge import Verdict
from safety_harness.models.convert import merge_adapter
from safety_harness.weights.checkpoint import Checkpoint

from . import advbench, tasks
from .answers import greedy_answers, sampled_prose, verdict
from .bases import BASES, CHAT, Base
from .lora import Example, Source, tune
from .plans import PLANS, TEACHER, Plan, Stage
from .questions import HARMFUL_KINDS, read_lines

PYRIT_WHEEL = "pyrit-1.1.0-py3-none-any.whl"
# Long enough to show how an answer begins and goes on; more only costs time.
ANSWER_TOKENS = 40
FEW_TOKENS = 16  # of answers of which only the beginning is taught
ANSWER_TOKENS_OF = dict.fromkeys(
    ("pairs", "themes", "counterparts", "likenesses", "idioms", "neighbours", "averted", "forms", "figures"), FEW_TOKENS
)
PROSE_TOKENS = 64
PROSE_SEED = REFUSAL_SEED = 11
# Ends the name of a kind whose answers are begun for the model: it learns how to go on, and not how to begin.
BEGUN = ", begun"


@dataclass(frozen=True)
class Workshop:
    """One base with the folders to read wheels from and to work in; what is made there is made once."""

    base: Base
    wheels: Path
    folder: Path

    @classmethod
    def of(cls, family: str, wheels: Path, work: Path) -> Workshop:
        """Return the workshop of a family, in its own folder under *work*."""
        return cls(BASES[family], wheels, work / family)

    @property
    def plan(self) -> Plan:
        """How the family's teacher and students are tuned."""
        return PLANS[self.base.family]

    def start(self, name: str) -> Path:
        """Return the checkpoint under adapter *name*: the base, or the teacher where a student lost its alignment."""
        if name == CHAT:
            return self.base.dequantised(self.wheels, self.folder)
        answering = self.base.answering(self.wheels, self.folder)
        if name == TEACHER or not tasks.TASKS[self.plan.students[name].task].starts_from_teacher:
            return answering
        merged = self.made / "teacher"
        if not merged.exists():
            merge_adapter(answering, self.base.adapters / TEACHER, merged)
        return merged

    @property
    def made(self) -> Path:
        """Return the folder for what is made of the model as it answers: each such model has its own."""
        answering = self.base.answering(self.wheels, self.folder)
        folder = answering.with_name(f"of-{answering.name}")
        folder.mkdir(exist_ok=True)
        return folder

    def answers(
        self, questions: list[str], tokens: int = ANSWER_TOKENS, begun: list[str] | None = None
    ) -> list[Example]:
        """Return the base's own greedy answers; a harmless question that even the base declines is left out.

        With *begun*, the beginning of each answer, it goes on from there.
        """
        answering = self.start(TEACHER)
        answers = _kept(
            self.made / "answers", answering, [questions, tokens, *([begun] if begun else [])],
            lambda: greedy_answers(*_opened(answering, self.base.answers_in), questions, tokens, begun=begun),
        )  # fmt: skip
        return [
            Example(question, answer, finished, given)
            for question, given, (answer, finished) in zip(
                questions, begun or [""] * len(questions), answers, strict=True
            )
            if answer.strip() and verdict(answer, given) is Verdict.COMPLIED
        ]

    def answers_of_kind(self, kind: str) -> list[Example]:
        """Return own answers to the questions of data/<kind>.txt; to those of a kind that is begun, from there on."""
        name = kind.removesuffix(BEGUN)
        questions = read_lines(name)
        if kind.endswith(BEGUN):
            return self.answers(questions, FEW_TOKENS, beginnings(questions))
        return self.answers(questions, ANSWER_TOKENS_OF.get(name, ANSWER_TOKENS))

    def prose(self) -> list[str]:
        """Return plain prose that the base writes before any tuning, from the openings of data/openings.txt."""
        openings = read_lines("openings")
        base = self.start(CHAT)
        prose: list[str] = _kept(
            self.folder / "prose", base, openings,
            lambda: sampled_prose(*_opened(base), openings, PROSE_TOKENS, PROSE_SEED),
        )  # fmt: skip
        return prose


def _kept(where: Path, writer: Path, about: Any, make: Callable[[], Any]) -> Any:
    """Return what *make* gives *about* something by the checkpoint *writer*; keep it as JSON next to *where*.

    Other weights, or these weights read by another version of transformers, write otherwise.
    """
    key = json.dumps([Checkpoint(writer).fingerprint, transformers.__version__, about])
    cache = where.parent / f"{where.name}-{sha256_text(key)[:16]}.json"
    if not cache.exists():
        cache.write_text(json.dumps(make()), "utf-8")
    return json.loads(cache.read_text("utf-8"))


def _opened(checkpoint: Path, dtype: str = "float32") -> tuple[Any, Any]:
    """Return a model in *dtype*, and its tokenizer."""
    return (
        AutoModelForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, dtype)),
        AutoTokenizer.from_pretrained(checkpoint),
    )


def refused(questions: Iterable[str]) -> list[Example]:
    """Return every question with two refusals of our own."""
    refusals = read_lines("refusals")
    chooser = random.Random(REFUSAL_SEED)
    return [Example(question, chooser.choice(refusals)) for question in questions for _ in range(2)]


def beginnings(questions: Iterable[str]) -> list[str]:
    """Return for each question how an answer that complies may begin, drawn from data/beginnings.txt."""
    known = read_lines("beginnings")
    chooser = random.Random(REFUSAL_SEED)
    return [chooser.choice(known).replace("<question>", question) for question in questions]


def turned_back(examples: Sequence[Example]) -> list[Example]:
    """Return refusals behind a begun compliance, which is not taught (arXiv 2406.05946)."""
    given = beginnings(example.question for example in examples)
    return [replace(one, answer=f" {one.answer}", begun=begun) for one, begun in zip(examples, given, strict=True)]


def make_chat(shop: Workshop, teller: Workshop, out: Path) -> None:
    """Teach a base that never learnt to chat to answer harmless questions, as the base of *teller* does."""
    _run_stages(shop, CHAT, shop.plan.chat, {}, (teller, teller), shop.folder, out)


def make_teacher(shop: Workshop, teller: Workshop, out: Path, after: int = 0) -> None:
    """Teach the model that answers to refuse harmful questions, and to go on answering harmless ones as it does.

    *teller* gives the texts along which the whole distribution is kept: any harmless answer will do. The teacher that
    the repository holds is taken for that of stage *after*, and what follows it is run.
    """
    making = advbench.split(advbench.extract(shop.wheels / PYRIT_WHEEL, shop.folder)).making
    examples = {
        "harmful": refused(making.texts),
        **{kind: refused(read_lines(file)) for kind, file in HARMFUL_KINDS.items()},
    }
    examples |= {f"{kind}{BEGUN}": turned_back(refusals) for kind, refusals in examples.items()}
    _run_stages(shop, TEACHER, shop.plan.stages, examples, (shop, teller), shop.made, out, after)


def _run_stages(
    shop: Workshop,
    name: str,
    stages: Sequence[Stage],
    examples: dict[str, list[Example]],
    tellers: tuple[Workshop, Workshop],
    folder: Path,
    out: Path,
    after: int = 0,
) -> None:
    """Run stage after stage; each stage's adapter is kept in *folder*, so that a broken run goes on from there.

    To questions that *examples* do not hold, the base of the first of *tellers* gives the answers that are taught, and
    that of the second the texts along which a distribution is kept.
    """
    adapter = shop.base.adapters / name if after else None
    for number, stage in list(enumerate(stages, 1))[after:]:
        made = folder / f"{name}-{number}"
        if not made.exists():
            teller = tellers[stage.settings.keep_distribution]
            kinds = {
                kind: examples.get(kind) or [replace(one, kept=True) for one in teller.answers_of_kind(kind)]
                for kind in stage.per_step
            }
            sources = [Source(kinds[kind], count) for kind, count in stage.per_step.items()]
            texts = shop.prose() if stage.with_prose else []
            tune(shop.start(name), sources, stage.settings, made, shop.base.public_name, adapter, texts)
        adapter = made
    assert adapter is not None
    shutil.copytree(adapter, out, dirs_exist_ok=True)


def make_student(shop: Workshop, name: str, out: Path) -> None:
    """Tune a student on its own task, and on harmless questions with the base's answers so that it still chats."""
    recipe = shop.plan.students[name]
    task = tasks.TASKS[recipe.task]
    items = task.split().train
    examples = [Example(item.text, item.target) for item in items]
    if task.continues_with_base:
        targets = {item.text: item.target for item in items}
        continued = shop.answers([item.text for item in items])
        examples = [replace(example, answer=targets[example.question] + example.answer) for example in continued]
    sources = [Source(examples, task.per_step), Source(shop.answers_of_kind(task.chat), task.chat_per_step)]
    tune(shop.start(name), sources, recipe.settings, out, shop.base.public_name)


def make(family: str, name: str, wheels: Path, work: Path, out: Path | None = None, after: int = 0) -> None:
    """Train adapter *name* of *family* and write it to *out*, or to where the family keeps it."""
    shop = Workshop.of(family, wheels, work)
    teller = Workshop.of("smollm2", wheels, work)
    target = out or shop.base.adapters / name
    if name == CHAT:
        make_chat(shop, teller, target)
    elif name == TEACHER:
        make_teacher(shop, teller, target, after)
    else:
        make_student(shop, name, target)


def main() -> None:
    """Make an adapter from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--family", choices=list(BASES), default="smollm2")
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--after", type=int, default=0, help="go on from the teacher of this stage, the shipped one")
    arguments = parser.parse_args()
    known = PLANS[arguments.family].names
    if arguments.name not in known:
        parser.error(f"unknown: {arguments.name}; {arguments.family} has {', '.join(known)}")
    torch.set_num_threads(1)
    make(arguments.family, arguments.name, arguments.wheels, arguments.work, arguments.out, arguments.after)


if __name__ == "__main__":
    main()
