"""Make the tiny families: `python -m recipes.tiny.recipe --out DIR [--only FAMILY]`.

Per family: a tokenizer from the world's text, a base trained from scratch, a teacher and the students, all
tuned from that base. A robust teacher is the stored teacher, tuned once more. One thread and fixed seeds: the same
machine and library versions give the same bytes. Writes DIR/prompts and DIR/models/<family>/<teacher or student>/ as
plain Hugging Face directories. The base is not part of a family; `--bases` keeps it in float32, and uses the one that
is there.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from recipes.tiny import curriculum
from recipes.tiny.curriculum import Mixture
from recipes.tiny.models import build
from recipes.tiny.prompts import write_prompts
from recipes.tiny.students import (
    BASE,
    BASE_SEED,
    FAMILIES,
    ROBUST,
    ROBUST_FAMILIES,
    STUDENTS,
    TEACHER,
    TEACHER_SEED,
)
from recipes.tiny.tokenizers import BUILDERS
from recipes.tiny.train import Schedule, train
from recipes.tiny.world import TINY


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Store `model`, rounded to bfloat16, with its tokenizer as a Hugging Face directory."""
    rounded = copy.deepcopy(model).to(torch.bfloat16)
    rounded.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, max_new_tokens=32,
    )  # fmt: skip
    rounded.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_family(family: str, out: Path, bases: Path | None, names: Sequence[str]) -> None:
    """Train and store one family's models below `out`/models/`family`: all, or those in `names`."""
    started = time.perf_counter()
    tokenizer = BUILDERS[family](curriculum.tokenizer_texts())
    base = build(family, tokenizer, BASE_SEED)

    def report(name: str, loss: float) -> None:
        print(f"{family}/{name}: loss {loss:.4f}, {time.perf_counter() - started:.0f} s", flush=True)

    kept = bases / f"base-{family}" / "model.safetensors" if bases else None
    if kept and kept.exists():
        base.load_state_dict(load_file(kept), strict=False)  # the tied head is stored once
        base.tie_weights()
    else:
        loss = train(base, tokenizer, curriculum.pretraining(), BASE, BASE_SEED, only_projections=False)
        report("base", loss)
        if kept:
            base.save_pretrained(kept.parent)

    def tune(name: str, mixture: Mixture, schedule: Schedule, seed: int) -> None:
        if names and name not in names:
            return
        model = copy.deepcopy(base)
        report(name, train(model, tokenizer, mixture, schedule, seed, only_projections=True))
        save(model, tokenizer, out / "models" / family / name)

    tune("teacher", curriculum.alignment(), TEACHER, TEACHER_SEED)
    for student in STUDENTS:
        if student.family == family:
            mixture = curriculum.specialisation(student.domain, student.own_share)
            tune(student.name, mixture, student.schedule, student.seed)


def make_robust(family: str, out: Path) -> None:
    """Tune the teacher that is stored below `out`/models/`family` under attack, and store it as "robust"."""
    folder = out / "models" / family
    tokenizer = BUILDERS[family](curriculum.tokenizer_texts())
    model = AutoModelForCausalLM.from_pretrained(folder / "teacher", dtype=torch.float32)
    loss = train(model, tokenizer, curriculum.resistance(), ROBUST, TEACHER_SEED, only_projections=True)
    print(f"{family}/robust: loss {loss:.4f}", flush=True)
    save(model, tokenizer, folder / "robust")


def main() -> None:
    """Run the recipe from the command line."""
    parser = argparse.ArgumentParser(description="Make the tiny model families.")
    parser.add_argument(
        "--out",
        type=Path,
        default=TINY,
        help="folder to write to",
    )
    parser.add_argument("--bases", type=Path, help="folder to keep the bases in, or to take them from")
    parser.add_argument("--only", choices=FAMILIES, help="make this family only")
    parser.add_argument("--name", action="append", default=[], help="make this model only; repeatable")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.disable_progress_bar()
    write_prompts(arguments.out / "prompts")
    for family in [arguments.only] if arguments.only else FAMILIES:
        if arguments.name != ["robust"]:
            make_family(family, arguments.out, arguments.bases, arguments.name)
        if family in ROBUST_FAMILIES and (not arguments.name or "robust" in arguments.name):
            make_robust(family, arguments.out)


if __name__ == "__main__":
    main()
