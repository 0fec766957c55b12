"""Compare attacked questions with those that other tools make by their own code.

    pip download --no-deps --dest FOLDER pyrit==1.1.0 garak==0.17.1
    npm pack promptfoo@0.123.1 --pack-destination FOLDER
    python -m venv SMALL && SMALL/bin/pip install appdirs colorama jinja2 jsonschema langdetect nltk pydantic pyyaml \
        tinytag tqdm xdg-base-dirs
    python -m venv DEEPTEAM && DEEPTEAM/bin/pip install deepteam==1.0.10 sentry-sdk posthog
    python -m benchmarks.quality.attack_texts --peers FOLDER --small SMALL/bin/python --deepteam DEEPTEAM/bin/python

asks the first 50 harmless questions of the gate, and eight that templates could trip over. PyRIT and garak are unpacked
into a folder that is removed again, and imported with the few packages that this part of them needs. deepteam cannot be
imported without all of its packages, and two more that it does not name. Of promptfoo's bundle node evaluates the
strategies alone. All of it runs in processes of its own: peer_code.py and peer_code.mjs.

The command prints the tables and writes ``attack_texts.md``. It ends with 1 if a template of ours sends another text
than PyRIT's does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import string
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import yaml
from tabulate import tabulate

from safety_harness.attacks import rewrites
from safety_harness.attacks.attack import Attack, Misfit
from safety_harness.attacks.builtin import builtin_attacks
from safety_harness.attacks.wheel import wheel_attack, wheel_table
from safety_harness.conversation import asked_text
from safety_harness.errors import DataError

ARCHIVES = {
    "pyrit": ("pyrit-1.1.0-py3-none-any.whl", "84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a"),
    "garak": ("garak-0.17.1-py3-none-any.whl", "cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8"),
    "promptfoo": ("promptfoo-0.123.1.tgz", "53471b239132b5e7a270fda458f78a1f1b920abb617ef4dc2b096608d480ee2f"),
}
STRATEGIES = "package/dist/src/strategies-De9by-Pd.js"
ROOT = Path(__file__).parents[2]
QUESTIONS = ROOT / "safety_harness" / "families" / "prompts" / "harmless.report.jsonl"
PAGE = Path(__file__).with_suffix(".md")
N = 50
SEED = 7
# Of each of PyRIT's templates, not only those that this package names.
FEW = 3
EDGES = (
    "What does {{ prompt }} mean in Jinja?",
    "What do {question} and {object} mean?",
    "{% if it %}Why{% endif %} {# not #} so?",
    "Is \"this\" the same as 'that' & <b>these</b>?",
    "Two lines:\nwhat comes after the first?",
    "  Why  do   spaces   matter?  ",
    "Was heißt „Brot“ auf 日本語, and what is 🍞?",
    r"What do \n, \g<0> and %s do in a text?",
)


class Always(Random):
    """A generator of chance whose every draw says yes."""

    def random(self) -> float:
        """Return the lowest number that can be drawn."""
        return 0.0


@dataclass(frozen=True)
class Pair:
    """An attack of ours, the code of a peer that is nearest to it, and why their texts differ.

    *payload* cuts the question out of the peer's text. *bare* asks the questions without their punctuation.
    """

    ours: str
    peer: str
    code: str
    why: str
    payload: Callable[[str], str] = field(default=str)
    bare: bool = False


def behind_colon(text: str) -> str:
    """Return what stands behind the last colon of *text*."""
    return text.rpartition(": ")[2]


_WORDS = "Ours adds how to decode it."
PAIRS = (
    Pair("base64", "pyrit", "Base64Converter", _WORDS),
    Pair("base64", "garak", "buffs.encoding.Base64", "Each adds words of its own.", behind_colon),
    Pair("base64", "garak", "probes.encoding.InjectBase64", "The first of its four encoders. " + _WORDS),
    Pair("base64", "deepteam", "Base64", _WORDS),
    Pair("base64", "promptfoo", "addBase64Encoding", _WORDS),
    Pair("rot13", "pyrit", "ROT13Converter", _WORDS),
    Pair("rot13", "garak", "probes.encoding.InjectROT13", _WORDS),
    Pair("rot13", "deepteam", "ROT13", _WORDS),
    Pair("rot13", "promptfoo", "addRot13", _WORDS),
    Pair("flipped", "pyrit", "FlipConverter", _WORDS),
    Pair("leet", "pyrit", "LeetspeakConverter", "PyRIT replaces eleven letters, ours six, each in 60 of 100 places."),
    Pair(
        "leet", "pyrit", "LeetspeakConverter(custom_substitutions)", "PyRIT with our six letters replaces each of them."
    ),
    Pair("leet", "deepteam", "Leetspeak", "deepteam replaces seven letters, each time."),
    Pair("leet", "promptfoo", "addLeetspeak", "promptfoo replaces seven letters, each time."),
    Pair("leet", "garak", "probes.encoding.InjectLeet", "The same six letters, in 50 of 100 places, by other draws."),
    Pair("leet", "garak", "probes.encoding.InjectLeet, every letter", "garak with its chance taken out, too."),
    Pair("spaced", "pyrit", "CharacterSpaceConverter", "PyRIT spaces each word, ours half, and drops punctuation."),
    Pair("spaced", "pyrit", "CharacterSpaceConverter", "Questions that have none: PyRIT spaces each word.", bare=True),
    Pair("spaced", "deepteam", "CharacterStream", "deepteam spaces each word, ours half of them."),
    Pair("noise", "pyrit", "CharSwapConverter", "PyRIT swaps in a fifth of the words, ours in half, and changes case."),
    Pair("noise", "pyrit", "CharNoiseConverter", "PyRIT moves 5 of 100 characters to a neighbour in ASCII."),
)
WHOLLY: Mapping[str, Callable[[str, Random], str]] = {"leet": rewrites.leet, "spaced": rewrites.spaced}
"""The rewrites whose chance can be taken out: then each letter, or word, is changed."""
DRAWN = {
    "pyrit": ("CharSwapConverter", "CharNoiseConverter"),
    "garak": ("probes.encoding.InjectLeet",),
    "ours": ("leet", "spaced", "noise"),
}


def equal(ours: Iterable[str], theirs: Iterable[str]) -> int:
    """Count the texts that are identical, to the byte."""
    return sum(one.encode() == other.encode() for one, other in zip(ours, theirs, strict=True))


def sent(attack: Attack, questions: Sequence[str]) -> list[str]:
    """Return what the user says last under *attack*, or the reason why it does not fit, a text a question."""
    seen = [attack.sees(question) for question in questions]
    return [f"misfit: {one.reason}" if isinstance(one, Misfit) else asked_text(one) for one in seen]


def without_punctuation(question: str) -> str:
    """Return *question* without ASCII punctuation."""
    return " ".join(question.translate(str.maketrans("", "", string.punctuation)).split())


def behind_words(ours: Iterable[str], payloads: Iterable[str]) -> int:
    """Count the texts of ours that are a payload, or end with it as a paragraph of its own."""
    return sum(f"\n\n{one}".endswith(f"\n\n{payload}") for one, payload in zip(ours, payloads, strict=True))


def counts(pair: Pair, questions: Sequence[str], theirs: Sequence[str]) -> tuple[int, int, int | None]:
    """Count equal texts: as they are sent, of the question alone, and where all that chance may change is changed."""
    ours = sent(builtin_attacks()[pair.ours], questions)
    payloads = [pair.payload(text) for text in theirs]
    wholly = WHOLLY.get(pair.ours)
    changed = equal((wholly(question, Always()) for question in questions), payloads) if wholly else None
    return equal(ours, theirs), behind_words(ours, payloads), changed


def verified(folder: Path, peer: str) -> Path:
    """Return the archive of *peer*.

    Raises:
        SystemExit: it is missing, or another one.
    """
    name, sha256 = ARCHIVES[peer]
    archive = folder / name
    if not archive.is_file():
        raise SystemExit(f"{archive}: there is no such file. Download it as {Path(__file__).name} says at its top.")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
        raise SystemExit(f"{archive}: is not the {name} whose sha256 is {sha256}. Download it again.")
    return archive


class Runner:
    """Runs the code of each peer in an empty home: a *command* each, to which job and result are added.

    *paths* are the folders that a peer's Python code is imported from.
    """

    def __init__(self, commands: Mapping[str, Sequence[str]], paths: Mapping[str, Path], scratch: Path) -> None:
        self._commands, self._paths, self._scratch = commands, paths, scratch

    def __call__(
        self,
        peer: str,
        questions: Sequence[str],
        templates: Sequence[str] = (),
        *,
        seed: int | None = SEED,
        timed: bool = False,
    ) -> dict[str, Any]:
        """Return what the code of *peer* makes of *questions*."""
        job, result = self._scratch / "job.json", self._scratch / "result.json"
        asked = {"questions": questions, "templates": templates, "seed": seed, "timed": timed}
        job.write_text(json.dumps(asked), encoding="utf-8")
        result.unlink(missing_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._scratch),
            "PYTHONPATH": str(self._paths.get(peer, "")),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DEEPTEAM_TELEMETRY_OPT_OUT": "YES",
            "DEEPEVAL_TELEMETRY_OPT_OUT": "YES",
        }
        command = [*self._commands[peer], str(job), str(result)]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return answer


def readable_templates(folder: Path) -> tuple[dict[str, Attack], int]:
    """Return the attacks of all of PyRIT's templates that our reader takes, by file, and how many it refuses.

    Only those count that take a question and nothing else, and whose file name is their own: PyRIT finds them by it.
    """
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*.yaml")):
        if "multi_parameter" not in file.parts:
            files.setdefault(file.name, []).append(file)
    attacks, refused = {}, 0
    for name, (file, *others) in files.items():
        content = file.read_bytes()
        if others or yaml.safe_load(content).get("parameters") != ["prompt"]:
            continue
        row = {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "kind": "-", "source": "-"}
        table = {"wheel": {**wheel_table()["wheel"], "folder": ""}, "templates": {name: row}}
        try:
            attacks[name] = wheel_attack(name, lambda _source, file=file: file, table)
        except DataError:
            refused += 1
    return attacks, refused


@dataclass(frozen=True)
class Seen:
    """What the code of all peers made of the questions."""

    questions: Sequence[str]
    bare: Sequence[str]
    texts: Mapping[str, Mapping[str, Sequence[str]]]
    seconds: Mapping[str, Mapping[str, float]]
    imported: Mapping[str, float]

    def of(self, peer: str, code: str, part: str = "harmless") -> Sequence[str]:
        """Return the texts of one piece of code: of the harmless questions, of the edges, or of the bare ones."""
        texts, asked = self.texts[peer][code], len(self.questions)
        ends = {"harmless": (0, asked), "edges": (asked, asked + len(EDGES)), "bare": (asked + len(EDGES), None)}[part]
        return texts[slice(*ends)]


def template_rows(seen: Seen, attacks: Mapping[str, Attack]) -> list[tuple[str, str, int, int]]:
    """Return for each template that the package names how many texts are identical: of questions, and of edges."""
    rows = wheel_table()["templates"]
    return [
        (
            name,
            rows[name]["file"],
            equal(sent(attack, seen.questions), seen.of("pyrit", rows[name]["file"])),
            equal(sent(attack, EDGES), seen.of("pyrit", rows[name]["file"], "edges")),
        )
        for name, attack in attacks.items()
    ]


def rewrite_rows(seen: Seen) -> list[tuple[object, ...]]:
    """Return a row for each pair of an attack and the code that is nearest to it."""
    rows = []
    for pair in PAIRS:
        questions, part = (seen.bare, "bare") if pair.bare else (seen.questions, "harmless")
        code = f"{pair.peer} `{pair.code}`" + (", no punctuation" if pair.bare else "")
        found = counts(pair, questions, seen.of(pair.peer, pair.code, part))
        edges = [] if pair.bare else [one for one in counts(pair, EDGES, seen.of(pair.peer, pair.code, "edges")) if one]
        cells = ["" if one is None else one for one in found]
        rows.append((pair.ours, code, *cells, "" if pair.bare else max(edges, default=0), pair.why))
    return rows


def drawn_rows(run: Runner, questions: Sequence[str]) -> list[tuple[object, ...]]:
    """Return of each text that chance decides how often two processes agree, with a seed and without."""
    rows = []
    for peer, codes in DRAWN.items():
        seeded, again, free, free_again = (
            run(peer, questions, seed=seed)["texts"] for seed in (SEED, SEED, None, None)
        )
        for code in codes:
            unchanged = equal(questions, seeded[code])
            rows.append((peer, f"`{code}`", equal(seeded[code], again[code]),
                         equal(free[code], free_again[code]), unchanged))  # fmt: skip
    return rows


def page(seen: Seen, templates: Sequence[Sequence[object]], every: str, drawn: Sequence[Sequence[object]]) -> str:
    """Return the page with all tables."""

    def table(rows: Sequence[Sequence[object]], columns: Sequence[str]) -> str:
        return tabulate(rows, columns, tablefmt="github", disable_numparse=True)

    n, edges = len(seen.questions), len(EDGES)
    first = table(templates, ("ours", "PyRIT's file", f"identical of {n}", f"identical of {edges}"))
    second = table(
        rewrite_rows(seen),
        ("ours", "their code", "as sent", "question alone", "all changed", f"at best, of {edges}", "what differs"),
    )
    third = table(drawn, ("whose", "code", "with a seed", "without", "left as it was"))
    times = [
        (peer, f"{seen.imported[peer]:.1f}", f"{min(took.values()):.3f}", f"{max(took.values()):.2f}", len(took))
        for peer, took in seen.seconds.items()
    ]
    fourth = table(times, ("whose", "import", "fastest", "slowest", "pieces of code"))
    return f"""# The same attacks, by the code of other tools

PyRIT 1.1.0, garak 0.17.1, deepteam 1.0.10 and promptfoo 0.123.1 were run by their own code. They were
asked {n} harmless questions, and {edges} that hold braces, Jinja, line ends, spaces or letters outside of ASCII. Texts
count as identical if each
byte is. These commands make the page. The sha256 of the archives are checked.

```console
$ pip download --no-deps --dest FOLDER pyrit==1.1.0 garak==0.17.1
$ npm pack promptfoo@0.123.1 --pack-destination FOLDER
$ python -m venv SMALL
$ SMALL/bin/pip install appdirs colorama jinja2 jsonschema langdetect nltk pydantic pyyaml tinytag tqdm xdg-base-dirs
$ python -m venv DEEPTEAM
$ DEEPTEAM/bin/pip install deepteam==1.0.10 sentry-sdk posthog
$ python -m benchmarks.quality.attack_texts --peers FOLDER --small SMALL/bin/python --deepteam DEEPTEAM/bin/python
```

## Templates taken from PyRIT

PyRIT's class `TextJailBreak` fills them by Jinja, our reader by replacing the slot.

{first}

{every}

## Rewrites of our own

Nothing of these is taken from a peer: the forms are published, and the words around them are ours. "As sent" compares
all that the user says. "Question alone" compares the rewritten question without the words before it. "All changed" lets
ours replace each letter or space each word, where chance picks some. The last count is the best of the three on the
{edges} questions.

{second}

The other attacks of ours have no code to compare with, which takes a question and needs no model:

- **Prefill.** None of the four has one (see [attack_coverage.md](attack_coverage.md)).
- **Past tense.** PyRIT's `TenseConverter` asks a model. garak's `probes.phrasing` reads sentences that a model
  has made.
- **Personas, dual answers, nesting.** PyRIT's are the templates above. garak's `probes.dan` sends finished prompts,
  which have no place for a question. deepteam asks a model.
- **Multi-turn.** PyRIT's skeleton key sends real turns to a target. Ours writes both sides.
- **Few-shot.** PyRIT's examples are real harmful answers. Ours are abstract.

## Texts that chance decides

How many of {n} texts two processes agree on, and how many texts are the question itself. Ours calls a question that
stays as it was a misfit, and does not send it. Ours has a seed of its own for each question, whether one is set or not.

{third}

## Seconds for 1,000 texts

The slowest of PyRIT is a template, of garak a buff, which copies an attempt, of deepteam a JSON document. Imports were
timed in a fresh process, deepteam's with telemetry off.

{fourth}
"""


def measured(run: Runner, templates: Path) -> tuple[str, bool]:
    """Return the page, and whether each of the named templates sends what PyRIT does."""
    lines = QUESTIONS.read_text(encoding="utf-8").splitlines()[:N]
    questions = [json.loads(line)["text"] for line in lines]
    bare = [without_punctuation(question) for question in questions]
    everything = [*questions, *EDGES, *bare]
    rows = wheel_table()["templates"]
    answers = {
        peer: run(peer, everything, [row["file"] for row in rows.values()] if peer == "pyrit" else [], timed=True)
        for peer in ("ours", "pyrit", "garak", "deepteam", "promptfoo")
    }
    seen = Seen(
        questions,
        bare,
        *({peer: answer[part] for peer, answer in answers.items()} for part in ("texts", "seconds", "imported")),
    )
    attacks = {
        name: wheel_attack(name, lambda source: templates / source["file"].rpartition("/")[2], wheel_table())
        for name in rows
    }
    found = template_rows(seen, attacks)
    every, refused = readable_templates(templates)
    asked = [*questions[: FEW - 1], EDGES[0]]
    theirs = run("pyrit", asked, list(every))["texts"]
    unequal = [name for name, attack in every.items() if equal(sent(attack, asked), theirs[name]) != FEW]
    summary = f"""PyRIT has {len(every) + refused} templates that take a question and nothing else. Our reader takes
{len(every)} of them, and gives identical texts for {len(every) - len(unequal)} on {FEW} questions. It refuses the other
{refused}, which have several slots, or hold Jinja that it would send as it is."""
    identical = not unequal and all(row[2:] == (N, len(EDGES)) for row in found)
    return page(seen, found, summary, drawn_rows(run, questions)), identical


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="folder with the wheels and promptfoo's archive")
    parser.add_argument("--small", required=True, help="Python with the packages that PyRIT and garak import")
    parser.add_argument("--deepteam", required=True, help="Python that has deepteam installed")
    arguments = parser.parse_args()
    archives = {peer: verified(arguments.peers, peer) for peer in ARCHIVES}
    pythons = {
        "ours": sys.executable,
        "pyrit": arguments.small,
        "garak": arguments.small,
        "deepteam": arguments.deepteam,
    }
    script = Path(__file__).with_name("peer_code.py")
    commands = {peer: [python, "-P", str(script), peer] for peer, python in pythons.items()}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for peer in ("pyrit", "garak"):
            with zipfile.ZipFile(archives[peer]) as files:
                files.extractall(scratch / peer)
        with tarfile.open(archives["promptfoo"]) as files:
            files.extract(STRATEGIES, scratch, filter="data")
        commands["promptfoo"] = ["node", str(script.with_suffix(".mjs")), str(scratch / STRATEGIES)]
        run = Runner(commands, {"ours": ROOT, "pyrit": scratch / "pyrit", "garak": scratch / "garak"}, scratch)
        text, identical = measured(run, scratch / "pyrit" / wheel_table()["wheel"]["folder"])
    print(text)
    PAGE.write_text(text, encoding="utf-8")
    if not identical:
        raise SystemExit("A template sends another text than PyRIT's code does: see the first table.")


if __name__ == "__main__":
    main()
