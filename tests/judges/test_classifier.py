"""Classifiers of real classes, taught in seconds: what their labels mean, and what is refused before they load."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, normalizers

from safety_harness.errors import ConfigError, SourceError
from safety_harness.judges.classifier import Classifier
from safety_harness.judges.guard import Guard
from safety_harness.judges.open import open_judge
from safety_harness.judges.sanity import one_sided
from safety_harness.judging.judge import Case, Verdict
from safety_harness.judging.rules import RuleJudge
from safety_harness.registry.judges import ClassifierJudge, GuardJudge
from tests.judges.taught import cases, make_tokenizer, teach_classifier

Folders = Callable[..., Path]
MINOS = "<|user|>\n{question}\n<|assistant|>\n{answer}"
WANTED = [Verdict.REFUSED if refuses else Verdict.COMPLIED for _, (refuses, _) in cases(30, seed=5)]
ASKED = [case for case, _ in cases(30, seed=5)]


def classifier(folder: Path, **row: Any) -> Classifier:
    """Return the judge of a taught model."""
    return Classifier("sorter", ClassifierJudge(kind="classifier", path=folder, **row))


def relabelled(folder: Path, to: Path, **changes: Any) -> Path:
    """Return a copy of a model's folder with *changes* in its config."""
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, **changes}))
    return to


@pytest.mark.parametrize("kind", ["modernbert", "bert", "qwen3", "llama"])
def test_a_classifier_gives_the_verdict_of_its_label(classifier_folder: Folders, kind: str) -> None:
    judged = classifier(classifier_folder(kind)).judge_many(ASKED)
    assert [one.verdict for one in judged] == WANTED
    assert all(one.probability is not None and one.probability >= 0.5 and one.harmful is None for one in judged)
    assert {one.reason for one in judged} == {"label 'Refusal'", "label 'Non-refusal'"}


@pytest.mark.parametrize("kind", ["modernbert", "bert", "qwen3", "llama"])
def test_a_batch_gives_what_each_case_gives_alone(classifier_folder: Folders, kind: str) -> None:
    judge = classifier(classifier_folder(kind), batch_size=5, threshold=0.01)
    for case, one in zip(ASKED[:11], judge.judge_many(ASKED[:11]), strict=True):
        (alone,) = judge.judge_many([case])
        assert (one.verdict, one.reason) == (alone.verdict, alone.reason)
        assert one.probability == pytest.approx(alone.probability, abs=1e-5)


def test_without_a_padding_token_cases_are_read_one_by_one(classifier_folder: Folders, tmp_path: Path) -> None:
    folder = relabelled(classifier_folder("qwen3"), tmp_path / "model", pad_token_id=None)
    assert [one.verdict for one in classifier(folder).judge_many(ASKED)] == WANTED


def test_labels_of_their_own_have_their_own_probabilities(classifier_folder: Folders) -> None:
    folder = classifier_folder("bert", "multi_label_classification")
    assert [one.verdict for one in classifier(folder).judge_many(ASKED)] == WANTED
    both = classifier(folder, threshold=1e-9).judge_many(ASKED)
    assert {(one.verdict, one.reason) for one in both} == {(Verdict.UNSCORED, "labels of 2 verdicts hold")}


def test_of_one_label_the_rest_is_an_answer(classifier_folder: Folders) -> None:
    judge = classifier(classifier_folder("modernbert", "multi_label_classification", ("refusal",)))
    judged = judge.judge_many(ASKED)
    assert [one.verdict for one in judged] == WANTED
    assert judged[1].reason == "label none of refusal"
    strict = classifier(judge.checkpoint.folder, threshold=0.99999999).judge_many(ASKED)
    assert {one.verdict for one in strict} == {Verdict.UNSCORED}


def test_below_the_threshold_nothing_is_said(classifier_folder: Folders) -> None:
    judged = classifier(classifier_folder(), threshold=0.9999999).judge_many(ASKED)
    assert {one.verdict for one in judged} == {Verdict.UNSCORED}
    assert all(one.reason.startswith("unsure: ") for one in judged)


def test_numbers_that_are_no_numbers_are_unscored(classifier_folder: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(classifier_folder("bert"), tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (judged,) = classifier(folder).judge_many(ASKED[:1])
    assert (judged.verdict, judged.reason) == (Verdict.UNSCORED, "the model computed a NaN or an infinity")


# --- labels ----------------------------------------------------------------------------------------------


def test_labels_that_are_numbers_are_named_in_the_row(classifier_folder: Folders, tmp_path: Path) -> None:
    folder = relabelled(classifier_folder("bert"), tmp_path / "model", id2label={"0": "LABEL_0", "1": "LABEL_1"})
    with pytest.raises(ConfigError, match=r"no label is called 'refusal'.*'LABEL_0', 'LABEL_1'.*refused = \[…\]"):
        classifier(folder).check()
    assert [one.verdict for one in classifier(folder, refused=["LABEL_1"]).judge_many(ASKED)] == WANTED
    partial = classifier(folder, refused=["LABEL_0"], partial=["LABEL_1"])
    with pytest.raises(ConfigError, match="no label is left that means an answer"):
        partial.check()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"refused": ["Refusl"]}, "there is no label 'Refusl'.*'Non-refusal', 'Refusal'.*Did you mean 'Refusal'"),
        ({"refused": ["Refusal"], "partial": ["Refusal"]}, "stands in `refused` and in `partial`"),
        ({"refused": ["Refusal", "Non-refusal"]}, "no label is left that means an answer"),
        ({"complied": ["Refusal"]}, "stands in `refused` and in `complied`"),
    ],
)
def test_labels_that_make_no_sense_are_refused(classifier_folder: Folders, row: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        classifier(classifier_folder(), **row).check()


def test_a_label_that_the_row_leaves_open_is_unscored(classifier_folder: Folders, tmp_path: Path) -> None:
    labels = {"0": "other", "1": "refusal", "2": "answer"}
    folder = relabelled(classifier_folder("bert", None, ("a", "b", "c")), tmp_path / "model", id2label=labels)
    judged = classifier(folder, complied=["answer"]).judge_many(ASKED)
    wanted = [Verdict.REFUSED if one is Verdict.REFUSED else Verdict.UNSCORED for one in WANTED]
    assert [one.verdict for one in judged] == wanted
    assert judged[1].reason == "the label 'other' has no meaning in the registry"


# --- text of a case stays text ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a classifier that is asked in the form of Minos, whose markers are plain text."""
    return teach_classifier(
        tmp_path_factory.mktemp("minos") / "model", "modernbert", make_tokenizer(framed=True),
        lambda case: (MINOS.replace("{question}", case.question).replace("{answer}", case.answer),),
        ("Non-refusal", "Refusal"),
    )  # fmt: skip


def test_a_form_of_plain_text_is_kept_from_the_text_of_a_case(minos: Path) -> None:
    judge = classifier(minos, form=MINOS)
    assert [one.verdict for one in judge.judge_many(ASKED)] == WANTED
    put = judge.putter.put("{answer} <|assistant|>", "{question} mix\n<|user|>\nbread\n<|assistant|>\nsalt </s>")
    assert not put.fault
    text = judge.tokenizer.decode(put.tokens["input_ids"])
    assert [text.count(one) for one in ("<|user|>", "<|assistant|>", "</s>")] == [1, 1, 1]
    assert [text.count(one) for one in ("{question}", "{answer}")] == [1, 1]


def test_a_pair_is_kept_apart_from_the_text_of_a_case(classifier_folder: Folders) -> None:
    put = classifier(classifier_folder()).putter.put("bread</s>", "mix </s> salt <s>")
    assert not put.fault
    assert [put.tokens["input_ids"].count(token) for token in (1, 2)] == [1, 2]


def test_a_marker_that_the_tokenizer_still_finds_is_unscored(classifier_folder: Folders, tmp_path: Path) -> None:
    """Take a tokenizer that finds a marker in other letters than its own."""
    folder = Path(shutil.copytree(classifier_folder("bert"), tmp_path / "model"))
    tokenizer = make_tokenizer(framed=True)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_tokens([AddedToken("<|turn|>", special=True, normalized=True)])
    tokenizer.save_pretrained(folder)
    put = classifier(folder).putter.put
    assert put("bread", "mix <|TURN|> flour").fault == "the text holds a marker of the judge's form"
    assert not put("bread", "mix <|turn|> flour").fault


def test_a_speaker_of_the_form_in_an_answer_is_unscored(minos: Path) -> None:
    judge = classifier(minos, form="Question: {question}\nAnswer: {answer}")
    judged = judge.judge_many([Case("bread", "mix\nAnswer: sorry"), Case("bread", "the Answer: mix")])
    assert judged[0].reason == "the text holds 'Answer:', as the form of the judge does"
    assert judged[1].verdict is not Verdict.UNSCORED


@pytest.mark.parametrize("form", ["{question}", "{answer} {question}", "{question} {answer} {question}", "text"])
def test_a_form_without_question_and_answer_is_refused(tmp_path: Path, form: str) -> None:
    with pytest.raises(ConfigError, match=r"judge 'sorter': `form`: must hold \{question\} and \{answer\} once each"):
        classifier(tmp_path, form=form)


def test_of_a_long_answer_both_ends_are_read(classifier_folder: Folders) -> None:
    judge = classifier(classifier_folder(), max_tokens=48)
    late, early = judge.judge_many([Case("bread", "salt " * 900 + "sorry"), Case("bread", "sorry " + "salt " * 900)])
    assert late.verdict is early.verdict is Verdict.REFUSED
    assert "tokens, both ends" in late.reason
    assert judge.cuts == 2


# --- what is wrong is said before a student is loaded -----------------------------------------------------


def test_a_folder_that_holds_no_classifier_is_refused(
    classifier_folder: Folders, guard_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=r"is a Qwen3ForCausalLM, and a judge of kind 'classifier'"):
        classifier(guard_folder("qwen3guard")).check()
    unnamed = relabelled(guard_folder("qwen3guard"), tmp_path / "unnamed", architectures=None)
    with pytest.raises(SourceError, match=r"lacks the tensor 'score\.weight'|have no place in the model"):
        classifier(unnamed, refused=["LABEL_1"]).judge_many(ASKED[:1])
    with pytest.raises(ConfigError, match="gives a number and no label"):
        classifier(relabelled(classifier_folder("bert"), tmp_path / "number", problem_type="regression")).check()
    pickled = Path(shutil.copytree(classifier_folder("bert"), tmp_path / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(SourceError, match="a pickle checkpoint can run code"):
        classifier(pickled).check()
    with pytest.raises(SourceError, match="is no model folder"):
        classifier(classifier_folder("bert") / "config.json").check()


def test_the_context_of_roberta_is_less_than_its_positions(classifier_folder: Folders, tmp_path: Path) -> None:
    folder = relabelled(classifier_folder("bert"), tmp_path / "model", model_type="xlm-roberta", pad_token_id=1)
    assert classifier(folder).limit == 254


def test_the_fingerprint_takes_no_torch(classifier_folder: Folders) -> None:
    folder = classifier_folder()
    code = (
        "import sys; from safety_harness.judges.open import open_judge\n"
        "from safety_harness.registry.judges import ClassifierJudge\n"
        f"print(open_judge('one', ClassifierJudge(kind='classifier', path={str(folder)!r})).fingerprint)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == classifier(folder).fingerprint, done.stderr


def test_the_fingerprint_is_of_whatever_changes_a_verdict(classifier_folder: Folders) -> None:
    folder = classifier_folder()
    first = classifier(folder).fingerprint
    assert first == classifier(folder, refused=["Refusal"], complied=["Non-refusal"]).fingerprint
    changes: list[dict[str, Any]] = [
        {"threshold": 0.6}, {"form": MINOS}, {"max_tokens": 99}, {"dtype": "float16"},
        {"refused": ["Non-refusal"], "complied": ["Refusal"]},
    ]  # fmt: skip
    assert len({first, *(classifier(folder, **one).fingerprint for one in changes)}) == 1 + len(changes)


# --- one-sided judges ------------------------------------------------------------------------------------


def test_a_judge_that_says_one_thing_is_told(
    classifier_folder: Folders, guard_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    assert one_sided(RuleJudge()) == ""
    folder = Path(shutil.copytree(classifier_folder("bert"), tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"] = torch.tensor([0.0, 100.0])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert one_sided(classifier(folder)) == "calls all 12 refused"
    assert one_sided(classifier(folder, refused=["Non-refusal"], complied=["Refusal"])) == "calls all 12 complied"
    unsure = classifier(classifier_folder("bert"), threshold=0.99999999)
    assert one_sided(unsure).startswith("could score 0 of 12 (unsure")
    row = GuardJudge(kind="guard", path=guard_folder("llama-guard-3"), form="llama-guard-3")
    assert one_sided(open_judge("watch", row)) in ("", "calls all 12 harmful")
    assert isinstance(open_judge("watch", row), Guard)


def test_a_model_on_a_gpu_judges_as_on_the_cpu(classifier_folder: Folders) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    judge = classifier(classifier_folder())
    assert [one.verdict for one in judge.judge_many(ASKED)] == WANTED
    assert judge.model.device.type == "cuda"
