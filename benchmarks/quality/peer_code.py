"""Run code that rewrites questions, in a process of its own: that of PyRIT, garak, deepteam, or this package.

    python -P benchmarks/quality/peer_code.py pyrit JOB RESULT

reads the JSON file JOB, with ``questions``, ``templates`` (file names), ``seed`` and ``timed``. It writes the JSON file
RESULT: for each piece of code its ``texts``, a text a question, and if ``timed`` the ``seconds`` that 1,000 texts take;
``imported`` is the time of the imports. The code must be importable: attack_texts.py unpacks the wheels and sets
PYTHONPATH.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

TIMED = 1000
SIX_LETTERS = {"a": ["4"], "e": ["3"], "i": ["1"], "o": ["0"], "s": ["5"], "t": ["7"]}
"""The letters that ``leet`` of safety_harness/attacks/rewrites.py replaces, as PyRIT takes them."""

Texts = Mapping[str, Callable[[str], str]]


def pyrit_code(templates: list[str], seed: int | None) -> Texts:
    """Return PyRIT's converters, and its *templates* as its own class renders them."""
    from pyrit import converter as theirs
    from pyrit.common.random_context import configure_random_seed
    from pyrit.datasets import TextJailBreak

    configure_random_seed(seed=seed)
    loop = asyncio.new_event_loop()

    def of(converter: Any) -> Callable[[str], str]:
        return lambda question: str(loop.run_until_complete(converter.convert_async(prompt=question)).output_text)

    rendered = {
        name: of(theirs.TextJailbreakConverter(jailbreak_template=TextJailBreak(template_file_name=name)))
        for name in templates
    }
    return rendered | {
        "Base64Converter": of(theirs.Base64Converter()),
        "ROT13Converter": of(theirs.ROT13Converter()),
        "FlipConverter": of(theirs.FlipConverter()),
        "LeetspeakConverter": of(theirs.LeetspeakConverter()),
        "LeetspeakConverter(custom_substitutions)": of(theirs.LeetspeakConverter(custom_substitutions=SIX_LETTERS)),
        "CharacterSpaceConverter": of(theirs.CharacterSpaceConverter()),
        "CharSwapConverter": of(theirs.CharSwapConverter()),
        "CharNoiseConverter": of(theirs.CharNoiseConverter()),
    }


def garak_code(_templates: list[str], seed: int | None) -> Texts:
    """Return garak's buffs that need no model or service, and the encoders of its probes."""
    from garak.attempt import Attempt, Message
    from garak.buffs.encoding import Base64, CharCode
    from garak.buffs.lowercase import Lowercase
    from garak.probes.encoding import InjectBase64, InjectLeet, InjectROT13

    random.seed(seed)  # as garak's command does with its option --seed

    def of(buff: Any) -> Callable[[str], str]:
        def text(question: str) -> str:
            (changed,) = buff.transform(Attempt(prompt=Message(text=question, lang="en")))
            return str(changed.prompt.last_message().text)

        return text

    def encoded(probe: Any) -> Callable[[str], str]:
        return lambda question: str(probe.encoding_funcs[0](question.encode()).decode())

    def every_letter(question: str) -> str:
        """Return the text of InjectLeet where each draw says that a letter is replaced."""
        drawn, random.random = random.random, lambda: 1.0
        try:
            return encoded(InjectLeet)(question)
        finally:
            random.random = drawn

    return {
        "buffs.encoding.Base64": of(Base64()),
        "buffs.encoding.CharCode": of(CharCode()),
        "buffs.lowercase.Lowercase": of(Lowercase()),
        "probes.encoding.InjectBase64": encoded(InjectBase64),
        "probes.encoding.InjectROT13": encoded(InjectROT13),
        "probes.encoding.InjectLeet": encoded(InjectLeet),
        "probes.encoding.InjectLeet, every letter": every_letter,
    }


def deepteam_code(_templates: list[str], _seed: int | None) -> Texts:
    """Return deepteam's attacks that need no model."""
    from deepteam.attacks import single_turn as theirs

    names = ("Base64", "ROT13", "Leetspeak", "CharacterStream", "ContextFlooding", "EmbeddedInstructionJSON")
    return {name: getattr(theirs, name)().enhance for name in names}


def own_code(_templates: list[str], seed: int | None) -> Texts:
    """Return the attacks of the package: what the user says last, or the reason why an attack does not fit."""
    from safety_harness.attacks.attack import Misfit
    from safety_harness.attacks.builtin import builtin_attacks
    from safety_harness.conversation import asked_text

    def of(attack: Any) -> Callable[[str], str]:
        def text(question: str) -> str:
            seen = attack.sees(question, seed or 0)
            return seen.reason if isinstance(seen, Misfit) else asked_text(seen)

        return text

    return {name: of(attack) for name, attack in builtin_attacks().items()}


def seconds(code: Callable[[str], str], questions: list[str]) -> float:
    """Return how long *code* takes for 1,000 texts, of its *questions* in turn."""
    begun = time.perf_counter()
    for question in itertools.islice(itertools.cycle(questions), TIMED):
        code(question)
    return time.perf_counter() - begun


def main() -> None:
    peer, job, result = sys.argv[1:]
    asked = json.loads(Path(job).read_text(encoding="utf-8"))
    begun = time.perf_counter()
    code = {"pyrit": pyrit_code, "garak": garak_code, "deepteam": deepteam_code, "ours": own_code}[peer]
    pieces = code(asked["templates"], asked["seed"])
    imported = time.perf_counter() - begun
    texts = {name: [code(question) for question in asked["questions"]] for name, code in pieces.items()}
    took = {name: seconds(code, asked["questions"]) for name, code in pieces.items() if asked["timed"]}
    answer = {"texts": texts, "seconds": took, "imported": imported}
    Path(result).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
