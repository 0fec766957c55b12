"""Write the tables of docs/scale.md about the cost of fleets from the code: ``python docs/fleet.py``.

A test holds the two together. What the tables are about has 7 billion parameters in the shape of Llama 2, or is
SmolLM2 with 135 million, and is asked as the students of smollm2 are. No weights are needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from safety_harness.evaluation.devices import DEVICES
from safety_harness.evaluation.estimate import Sketch, plan
from safety_harness.evaluation.fleet import SPEED_AHEAD, Fleet, Work, most_useful, outlay, seconds, work
from safety_harness.registry.load import load_registry

FILE = Path(__file__).with_name("scale.md")
BLOCK = re.compile(r"(<!-- (\w+): python docs/fleet.py -->\n).*?(<!-- end -->)", re.DOTALL)
# Layers, width, width of keys and values, inner width, words; whether words come out by the matrix by which they go in.
LLAMA_7B, SMOLLM2 = (32, 4096, 4096, 11008, 32000, False), (30, 576, 192, 1536, 49152, True)
FLEETS = (Fleet(1, 1), Fleet(8, 1), Fleet(8, 8))


def sketch(shape: tuple[int, int, int, int, int, bool]) -> Sketch:
    """Return a model of the Llama architecture in bfloat16, as its headers would tell it."""
    layers, width, keys, inner, words, tied = shape
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (words, width)}
    if not tied:
        shapes["lm_head.weight"] = (words, width)
    for layer in range(layers):
        rows = {"self_attn.q": width, "self_attn.k": keys, "self_attn.v": keys, "mlp.gate": inner, "mlp.up": inner}
        before = f"model.layers.{layer}."
        shapes |= {f"{before}{name}_proj.weight": (count, width) for name, count in rows.items()}
        shapes[f"{before}self_attn.o_proj.weight"] = (width, width)
        shapes[f"{before}mlp.down_proj.weight"] = (width, inner)
    config = {"model_type": "llama", "hidden_size": width, "num_hidden_layers": layers, "vocab_size": words}
    heads = {"num_attention_heads": width // 64, "num_key_value_heads": keys // 64, "intermediate_size": inner}
    return Sketch(config | heads, shapes, 2 * sum(map(math.prod, shapes.values())), here=True)


def like_smollm2(model: Sketch, device: str) -> Work:
    """Return what gating a student of the shape of *model* takes on a *device*, asked as smollm2's are."""
    (student,) = load_registry().select(family="smollm2", students=["json"])
    sketches = [model, model]
    chosen = DEVICES[device].device
    return work(student, sketches, plan(student, chosen, sketches).memory, chosen)


def parts() -> str:
    """Return the table of what one 7B student consists of."""
    one = like_smollm2(sketch(LLAMA_7B), "h200")
    first = outlay([one], Fleet(1, 1)).seconds
    rows = [("reading two models, and hashing the teacher", first - seconds(one, 1)), *one.parts.items()]
    cells = [(name, f"{taken:.0f}", f"{taken / first:.0%}") for name, taken in rows]
    return _table([*cells, ("**sum**", f"{first:.0f}", "")], ("part", "seconds", "share"))


def fleets() -> str:
    """Return the table of 17 and 200 students of 7B on fleets of H200s."""
    one = like_smollm2(sketch(LLAMA_7B), "h200")
    return _rows(one, (17, 200), (*FLEETS, Fleet(8, 8, ahead=2)), "GPU")


def cores() -> str:
    """Return the table of students of 135M on cores."""
    one = like_smollm2(sketch(SMOLLM2), "core")
    return _rows(one, (17, 200), (Fleet(1, 1), Fleet(2, 1), Fleet(16, 1), Fleet(16, 13)), "core")


def alone() -> str:
    """Return the table of one 7B student whose probes are asked ahead, and whose prior would be shared out as well."""
    one = like_smollm2(sketch(LLAMA_7B), "h200")
    rows = []
    for ahead in SPEED_AHEAD:
        out = outlay([one], Fleet(ahead, 1, ahead))
        shared = out.seconds - one.parts["prior"] * (1 - 1 / ahead)
        rows.append(
            (ahead, f"{out.seconds:.0f}", f"{out.device_hours * 3600:.0f}", f"{shared:.0f}", f"{shared * ahead:.0f}")
        )
    headers = ("GPUs", "seconds", "GPU-seconds held", "seconds, prior shared out", "GPU-seconds held")
    return _table(rows, headers)


def _rows(one: Work, counts: Sequence[int], sizes: Sequence[Fleet], device: str) -> str:
    """Return the table of so many students like *one* on fleets of these *sizes*."""
    rows, stops = [], []
    for students in counts:
        works = [one] * students
        for fleet in sizes:
            out = outlay(works, fleet)
            there = f"{fleet.devices * fleet.nodes} ({fleet.nodes} node{'s' * (fleet.nodes > 1)})"
            ahead = f", {fleet.ahead} a search" if fleet.ahead > 1 else ""
            held = f"{out.device_hours:.2f}" if device == "GPU" else f"{out.device_hours:.0f}"
            rows.append(
                (
                    students,
                    f"{there}{ahead}",
                    out.used,
                    out.waves,
                    f"{out.seconds / 60:.1f}",
                    held,
                    f"{out.read / 1e9:,.0f}",
                )
            )
        stops.append(str(most_useful(works, sizes[2])))
    headers = ("students", f"{device}s", "used", "waves", "minutes", f"{device}-hours held", "GB read")
    numbers = " and ".join(stops)
    return f"{_table(rows, headers)}\n\nWith more than {numbers} {device}s, these students take no shorter."


def _table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    """Return a table of Markdown, its first column on the left."""
    columns = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=columns)


TABLES = {"parts": parts, "fleets": fleets, "cores": cores, "alone": alone}


def page(text: str) -> str:
    """Return the *text* of docs/scale.md with its tables written again."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]]()}\n\n{block[3]}", text)


if __name__ == "__main__":
    FILE.write_text(page(FILE.read_text(encoding="utf-8")), encoding="utf-8")
