"""What a second worker's copy of the student costs in memory.

    python -m benchmarks.speed.shared_memory [--family smollm2] [--student json]

Two processes open the same student, as the workers of a run do, and go through the same stages in step; of each stage
the second's private memory is reported, in MiB and as a share of the model. Weights are mapped from the checkpoint's
file, so that their pages are shared until one is written: ``file`` is what of the mapping became the worker's own,
``heap`` what else it has beyond what its tokenizer and modules took before it was opened. The patch comes from the
cache of ``pytest suites/``. Linux only (``/proc/self/smaps``). Writes ``benchmarks/speed/shared_memory.md``.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import re
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from tabulate import tabulate

MIB = 2**20
WORKERS = 2
QUESTIONS = 16
HEADERS = ("stage", "file, MiB", "heap, MiB", "of the model, %")
MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+\s*(.*)")


def private() -> tuple[float, float]:
    """MiB that are this process's alone: of mapped weight files, and of everything that is no file."""
    file = heap = 0
    name = ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := MAPPING.match(line):
            name = found[1]
        elif line.startswith("Private_Dirty:"):
            size = int(line.split()[1]) * 1024
            file += size if name.endswith(".safetensors") else 0
            heap += size if not name.startswith("/") else 0
    return file / MIB, heap / MIB


def stages(family: str, student: str) -> Iterator[tuple[str, float]]:
    """Goes through them, and names each with the model's MiB when it is reached."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from safety_harness.evaluation.evaluator import open_evaluator
    from safety_harness.models.decoding.kv_cache import packed_weights
    from safety_harness.models.load import prepare
    from safety_harness.registry.load import load_registry
    from safety_harness.search.find import find_patch, select

    torch.set_num_threads(1)
    (chosen,) = load_registry().select(family=family, students=[student])
    folder = prepare(chosen.spec)
    kept = AutoTokenizer.from_pretrained(folder)
    with torch.device("meta"):  # its modules, without a number
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    yield "before the student is opened", 0.0
    del kept
    evaluator = open_evaluator(chosen)
    size = sum(parameter.nbytes for parameter in evaluator.generator.model.parameters()) / MIB
    yield "opened", size
    tokens = torch.ones((1, 8), dtype=torch.long)
    with torch.inference_mode():
        evaluator.generator.model(tokens, logits_to_keep=1)
    yield "read by a pass", size
    units = select(evaluator, find_patch(evaluator))
    with evaluator.transplanter.transplanted(units):
        yield "the patch in it", size
    yield "the patch out again", size
    with torch.inference_mode(), packed_weights(evaluator.generator.model):
        evaluator.generator.model(tokens, logits_to_keep=1)
        yield "its weights packed for decoding", size
    gc.collect()
    evaluator.asked(units, evaluator.questions.harmful.report.first(QUESTIONS))
    yield f"{QUESTIONS} questions answered", size


def work(family: str, student: str, to: Connection) -> None:
    for name, size in stages(family, student):
        to.send(None)  # this stage is reached
        to.recv()  # all have reached it
        to.send((name, size, *private()))
        to.recv()  # all have looked
    to.send("done")


def measured(family: str, student: str) -> Sequence[tuple[str, float, float, float]]:
    """Of each stage its name, the model's MiB, and the second worker's own MiB of the file and else."""
    context = multiprocessing.get_context("spawn")
    ends = []
    for _ in range(WORKERS):
        own, other = context.Pipe()
        context.Process(target=work, args=(family, student, other), daemon=True).start()
        other.close()  # or a worker that dies would never be missed
        ends.append(own)
    found = []
    while [end.recv() for end in ends] != ["done"] * WORKERS:
        for end in ends:
            end.send(None)
        found.append([end.recv() for end in ends][-1])
        for end in ends:
            end.send(None)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="smollm2")
    parser.add_argument("--student", default="json")
    options = parser.parse_args()
    (_, _, _, before), *found = measured(options.family, options.student)
    rows = [
        (name, f"{file:.0f}", f"{heap - before:.0f}", f"{100 * (file + heap - before) / size:.0f}")
        for name, size, file, heap in found
    ]
    table = tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True)
    text = (
        f"# Memory of a second worker\n\n`python -m benchmarks.speed.shared_memory --family {options.family} --student "
        f"{options.student}`: a model of {found[0][1]:.0f} MiB\n\n{table}\n"
    )
    (Path(__file__).parent / "shared_memory.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
