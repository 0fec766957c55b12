"""Check what a name in a registry stands for, what is asked without any, and that earlier sets are what they were."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from safety_harness.errors import ConfigError, DataError
from safety_harness.files import sha256_text
from safety_harness.registry.load import Student, load_registry
from safety_harness.registry.named import KINDS, sets
from safety_harness.registry.schema import Family
from safety_harness.registry.sources import SplitSpec
from safety_harness.registry.splits import further_questions, load_questions, read_source, read_split
from tests.samples import write_prompts

STUDENT = """
[families.a]
teacher = "t"
search = {{ prior_questions = 0, prior_harmless_questions = 0 }}
{keys}
[families.a.students.s]
path = "m"
{own}
"""
RIVERS = [f"How long is river number {number} in all?" for number in range(150)]


def student(folder: Path, keys: str = "", own: str = "") -> Student:
    """Read a registry of one student, whose family has these *keys* and which has its *own*."""
    (folder / "gate.toml").write_text(STUDENT.format(keys=keys, own=own), encoding="utf-8")
    (chosen,) = load_registry(folder / "gate.toml").select()
    return chosen


def fault(folder: Path, keys: str) -> str:
    """Return the message for a family with these *keys*."""
    with pytest.raises(ConfigError) as caught:
        student(folder, keys)
    return str(caught.value)


def names(spec: SplitSpec) -> tuple[str | None, ...]:
    """Return the set of each source of *spec*."""
    return tuple(source.set for source in (*spec.searched, spec.report))


# --- What a name stands for ------------------------------------------------------------------------------------------


def test_a_registry_without_questions_has_defaults(tmp_path: Path) -> None:
    family = student(tmp_path).family
    assert names(family.harmful) == ("advbench", "advbench")
    assert (family.harmful.search.part, family.harmful.report.part) == ("search", "report")
    assert names(family.harmless) == ("everyday", "everyday")
    assert family.text.set == "prose"
    assert {name: source.kind for name, source in family.further.items()} == {"harmbench": "harmful"}


@pytest.mark.parametrize("key", ['harmful = "tiny"', 'harmless = "tiny"', 'text = "tiny"', "further = {}"])
def test_whoever_names_a_set_gets_no_further_one(tmp_path: Path, key: str) -> None:
    """Keep the defaults of the other keys: only the download that nobody asked for is left out."""
    family = student(tmp_path, key).family
    assert not family.further
    assert {"everyday", "advbench", "prose", "tiny"} > {family.text.set, family.harmless.report.set}


def test_tiny_sets_are_those_of_the_tiny_families(tmp_path: Path) -> None:
    chosen = student(tmp_path, 'harmful = "tiny"\nharmless = "tiny"\ntext = "tiny"')
    tiny = load_registry().select(students=["tiny-llama/arithmetic"])[0]
    hashes = load_questions(tiny).hashes
    assert load_questions(chosen).hashes == {name: digest for name, digest in hashes.items() if "task" not in name}


def test_shipped_sets_are_read_in_full(tmp_path: Path) -> None:
    """Read every set of the package: as many questions as the catalogue says, and search and report apart."""
    for kind in KINDS:
        for name, entry in sets(kind).items():
            if not entry.report:
                continue
            if kind == "text":
                assert len(read_source(student(tmp_path, f'text = "{name}"').family.text)) == entry.questions
                continue
            chosen = (
                student(tmp_path, own=f'task = "{name}"') if kind == "task" else student(tmp_path, f'{kind} = "{name}"')
            )
            spec = chosen.spec.task if kind == "task" else getattr(chosen.family, kind)
            split = read_split(spec, 1.0)
            assert len(split.search) + len(split.report) == entry.questions, name


def test_every_set_of_the_catalogue_is_a_source() -> None:
    """Expand each set as a registry would; those of the user's own with a file."""
    family: dict[str, Any] = {"name": "a", "teacher": "t"}
    for kind in KINDS:
        for name, entry in sets(kind).items():
            assert entry.language in ("english", "tiny")
            value = {"set": name} if entry.report or entry.source else {"set": name, "path": "a.csv"}
            own = {"task": value} if kind == "task" else {}
            table = family | {"students": {"s": {"path": "m"} | own}} | ({} if own else {kind: value})
            Family.model_validate(table)
            assert not entry.source or entry.size
            assert "sha256" in entry.source or "revision" in entry.source or not entry.source, "not pinned"


def test_a_copy_of_a_set_is_read_by_its_columns(tmp_path: Path) -> None:
    """Tell XSTest's kinds apart in the user's own copy, and let the user say what upstream changed."""
    rows = [f"{number},{text},t,{'safe' if number % 2 else 'unsafe'}\n" for number, text in enumerate(RIVERS)]
    (tmp_path / "x.csv").write_text("id,prompt,type,label\n" + "".join(rows))
    keys = 'harmless = { set = "xstest", path = "x.csv" }\nharmful = { set = "xstest", path = "x.csv" }\n'
    family = student(tmp_path, keys + "near_duplicates = 1.0").family
    safe, unsafe = (read_split(spec, 1.0) for spec in (family.harmless, family.harmful))
    assert {*safe.search.texts, *safe.report.texts} == set(RIVERS[1::2])
    assert {*unsafe.search.texts, *unsafe.report.texts} == set(RIVERS[::2])
    other = student(tmp_path, 'harmless = { set = "xstest", path = "x.csv", where = {} }').family.harmless
    assert len(read_split(other, 1.0).report) + len(read_split(other, 1.0).search) == len(RIVERS)


def test_further_sets_are_a_list_of_names_or_a_table(tmp_path: Path) -> None:
    """Give both kinds of a set their own names in a list. In a table the kind of a set is known if it has but one."""
    listed = student(tmp_path, 'further = ["harmbench", "xstest", "everyday"]').family.further
    assert {name: source.kind for name, source in listed.items()} == {
        "harmbench": "harmful",
        "xstest-harmful": "harmful",
        "xstest-harmless": "harmless",
        "everyday": "harmless",
    }
    keys = 'further = { a = "harmbench", b = { set = "xstest", kind = "harmless", path = "x.csv" } }'
    table = student(tmp_path, keys).family.further
    assert {name: (source.set, source.kind) for name, source in table.items()} == {
        "a": ("harmbench", "harmful"),
        "b": ("xstest", "harmless"),
    }


def test_sides_may_be_named_one_by_one(tmp_path: Path) -> None:
    """Search on one set and report another: neither is split."""
    spec = student(tmp_path, 'harmful = { search = "advbench", report = "harmbench", also = ["tiny"] }').family.harmful
    assert names(spec) == ("advbench", "tiny", "harmbench")
    assert spec.search.part is spec.report.part is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('harmful = "advbnch"', "a.harmful: .*Unknown harmful question set 'advbnch'. Did you mean 'advbench'"),
        ('harmful = "everyday"', "Unknown harmful question set 'everyday'.*Known: advbench, .*A file has an ending"),
        ('text = "wikitext"', "families.a.text: Unknown text question set 'wikitext'.*Known: prose, tiny"),
        ('harmful = "jailbreakbench"', "cannot be fetched. Get it from https://.*set = \"jailbreakbench\", path"),
        ('harmful = { set = "nope", path = "x.csv" }', "Unknown harmful question set 'nope'"),
        ('harmful = { set = 3 }', "families.a.harmful.search.set: Input should be a valid string"),
        ('harmful = { path = "a.txt", limit = 0 }', "families.a.harmful.search.limit: Input should be greater"),
        ("harmful = 3", "families.a.harmful: Input should be a valid dictionary"),
        ("harmful = {}", "families.a.harmful.search: give exactly one of path"),
        ('harmful = { search = "a.txt" }', "families.a.harmful.report: Field required"),
        ('further = ["harmbnch"]', "families.a.further: Unknown question set 'harmbnch'. Did you mean"),
        ("further = [3]", "a list of further sets holds names"),
        ('further = { a = "xstest" }', "set 'xstest' are meant. Say kind = \"harmful\" or \"harmless\""),
        ('further = { a = { set = "advbench", kind = "harmless" } }', 'Say kind = "harmful"'),
        ('further = { a = "x.csv" }', "families.a.further.a.kind: Field required"),
        ('further = ["prose"]', "Unknown question set 'prose'"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_answered_with_the_known_ones(tmp_path: Path, keys: str, message: str) -> None:
    assert re.search(message, fault(tmp_path, keys))


# --- One file --------------------------------------------------------------------------------------------------------


def test_one_file_is_split_by_hash(tmp_path: Path) -> None:
    """Split a file that is named by its path, by a table, and with a limit for either side."""
    write_prompts(tmp_path / "mine.jsonl", RIVERS)
    for value, most in (
        ('"mine.jsonl"', 999),
        ('{ path = "mine.jsonl" }', 999),
        ('{ path = "mine.jsonl", limit = 40 }', 40),
    ):
        chosen = student(tmp_path, f"harmful = {value}\nnear_duplicates = 1.0")
        split = load_questions(chosen).harmful
        assert not set(split.search.texts) & set(split.report.texts)
        assert max(len(split.search), len(split.report)) <= most
        assert most == 40 or len(split.search) + len(split.report) == len(RIVERS)


def test_a_large_set_is_asked_in_part(tmp_path: Path) -> None:
    """Ask 256 of either side of thousands, unless the registry says another number."""
    write_prompts(tmp_path / "mine.jsonl", [f"word{number} thing{number * 7} q{number * 3}" for number in range(2000)])
    split = load_questions(student(tmp_path, 'harmless = "mine.jsonl"\nharmful = "tiny"')).harmless
    assert (len(split.search), len(split.report)) == (256, 256)
    keys = (
        'harmful = "tiny"\nharmless = "tiny"\nfurther.x = { set = "or-bench", path = "mine.jsonl", kind = "harmless" }'
    )
    chosen = student(tmp_path, keys)
    assert [len(prompts) for prompts in further_questions(chosen.family, load_questions(chosen)).values()] == [512]


def test_kinds_of_questions_stay_together_by_default(tmp_path: Path) -> None:
    """Drop every searched question of a kind that is held out: here all are of one kind. Both sides named, none is."""
    near = [f"please say how long the great river in the north is {number}" for number in range(99)]
    write_prompts(tmp_path / "mine.jsonl", [*near, *(f"word{n} thing{n} q{n}" for n in range(60))])
    split = load_questions(student(tmp_path, 'harmful = "mine.jsonl"')).harmful
    assert not [text for text in split.search.texts if text.startswith("please")]
    assert [text for text in split.report.texts if text.startswith("please")]
    write_prompts(tmp_path / "a.jsonl", near[:50])
    write_prompts(tmp_path / "b.jsonl", near[50:])
    both = load_questions(student(tmp_path, 'harmful = { search = "a.jsonl", report = "b.jsonl" }')).harmful
    assert (len(both.search), len(both.report)) == (50, 49)


@pytest.mark.parametrize(
    ("keys", "own", "message"),
    [
        ('harmful = "mine.txt"', "", r"mine.txt: \d+ of its questions are held out. The gate needs 16 or more to show"),
        ('harmless = "mine.txt"', "", "The gate needs 35 or more to show over_refusal = 0.1"),
        ('harmful = "mine.txt"\ngate = { dsr = 0.95 }', "", "The gate needs 73 or more to show dsr = 0.95"),
        ("", 'task = "mine.csv"', "The gate needs 35 or more to show task = 0.1"),
    ],
)  # fmt: skip
def test_a_set_too_small_for_the_gate_is_refused(tmp_path: Path, keys: str, own: str, message: str) -> None:
    """Refuse at once what no answers could make pass. A registry that names both sides decides that itself."""
    few = [f"word{n} thing{n} q{n}" for n in range(20)]
    (tmp_path / "mine.txt").write_text("\n".join(few))
    (tmp_path / "mine.csv").write_text("text,answer\n" + "".join(f"{text},4\n" for text in few))
    own = own.replace('"mine.csv"', '{ path = "mine.csv", answer = "answer" }')
    tiny = "".join(f'{kind} = "tiny"\n' for kind in ("harmful", "harmless", "text") if not keys.startswith(f"{kind} "))
    with pytest.raises(DataError, match=message):
        load_questions(student(tmp_path, tiny + keys, own))


# --- Earlier sets ----------------------------------------------------------------------------------------------------

# Of every set of every student: of tiny and paper as they were before sets had names. Patches are cached by them.
RECORDED = {
    "tiny": "50830e2fb3ddc35d31ac9f50df4278235264a119703ce6238fddf30adb97380a",
    "smollm2": "7164f196e2188de2f3e2ddf16ba7a5efbdd0d5693552372f305f1ae9cd4a4093",
    "gemma3": "3be9e249cf504445f282cc65cca65440c0e49293c4e2f989ef08b20a5b179532",
    "paper": "58caa15b46607bdd39d7e0cee8554ba78b3849f680277e2e576921c3ef125b35",
}


@pytest.mark.parametrize(
    "group", ["tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in RECORDED if name != "tiny")]
)
def test_sets_of_the_families_hash_as_they_did(group: str) -> None:
    hashes = {}
    for chosen in load_registry().select(family=group):
        if chosen.family.name == "tiny-robust":
            continue  # younger than this record
        questions = load_questions(chosen)
        further = further_questions(chosen.family, questions)
        hashes[chosen.id] = questions.hashes | {f"further.{name}": found.sha256 for name, found in further.items()}
    assert sha256_text(json.dumps(hashes, sort_keys=True)) == RECORDED[group]


def test_local_sets_of_smollm2_hash_as_they_did() -> None:
    family = load_registry().families["smollm2"]
    harmless = read_split(family.harmless, family.near_duplicates)
    assert (harmless.search.sha256[:12], harmless.report.sha256[:12]) == ("65cc884029ad", "3801446da87c")
    assert read_source(family.text).sha256[:12] == "3a8b49bb7b91"


@pytest.mark.slow
def test_default_sets_are_fetched_and_apart(tmp_path: Path) -> None:
    """Fetch the defaults from PyPI: AdvBench in full, near-duplicates apart, with categories; and HarmBench."""
    chosen = student(tmp_path)
    questions = load_questions(chosen)
    assert (len(questions.harmful.search), len(questions.harmful.report)) == (234, 256)
    assert all(prompt.category for prompt in questions.harmful.report)
    (further,) = further_questions(chosen.family, questions).values()
    assert len(further) == 200
