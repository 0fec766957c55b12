"""What page faults cost a forward pass, with freed memory given back and with it kept.

    python -m benchmarks.speed.memory FOLDER

FOLDER is a prepared checkpoint. Each side runs in a process of its own, on one thread, and prints seconds and faults of
64 rows of 91 tokens in bfloat16: the second of two passes.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time


def measure(folder: str, *, keep: bool) -> None:
    """Print seconds and page faults of one pass in this process."""
    import torch
    from transformers import AutoModelForCausalLM

    from safety_harness.models.decoding.malloc import keep_freed_memory

    torch.set_num_threads(1)
    if keep:
        keep_freed_memory()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    tokens = torch.ones((64, 91), dtype=torch.long)
    for _ in range(2):
        faults, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        with torch.inference_mode():
            model(input_ids=tokens, logits_to_keep=48)
        seconds = time.perf_counter() - start
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    print(f"{'kept' if keep else 'given back':10} {seconds:.2f} s, {faults:,} page faults")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(sys.argv[1], keep=sys.argv[2] == "kept")
    else:
        for side in ("given back", "kept"):
            subprocess.run([sys.executable, __file__, sys.argv[1], side], check=True)
