"""Try a chat template before it is trusted, in a process of its own with limits of time and memory."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from safety_harness.errors import SourceError

_SCRIPT = Path(__file__).with_name("render_probes.py")
# A usual template takes a hundredth of a second. The clock counts more than the processor where a machine is busy.
MAX_SECONDS = 5
MAX_CLOCK_SECONDS = 30
MAX_BYTES = 2**30


def try_template(template: str, tokenizer: Any, source: Path | str) -> None:
    """Check that *template* puts a question once and whole, and ends where an answer begins.

    Args:
        tokenizer: its special tokens are what a template may name.
        source: the file that the template came from, for the message.

    Raises:
        SourceError: the template is broken, raises, takes too long or too much memory. Or it leaves the question out,
            changes or repeats it, or ends it with an end of text.
    """
    if fault := _fault(template, json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)):
        raise SourceError(f"{source}: its chat template {fault}. Mend or replace it.")


@functools.cache
def _fault(template: str, special: str) -> str:
    """Return what is wrong with *template*, or an empty string. Each template is tried once in a process."""
    given = {"template": template, "special": json.loads(special), "seconds": MAX_SECONDS, "bytes": MAX_BYTES}
    try:
        tried = subprocess.run(
            [sys.executable, "-P", str(_SCRIPT)],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=MAX_CLOCK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"takes more than {MAX_SECONDS} seconds"
    if tried.returncode < 0:  # killed by the limit, or by an overflow of the stack
        return f"takes more than {MAX_SECONDS} seconds, or ends the process that tries it"
    if tried.returncode:
        return f"could not be tried ({(tried.stderr.splitlines() or ['no reason given'])[-1][:200]})"
    fault: str = json.loads(tried.stdout)
    return fault
