"""Batched greedy answers are, token for token, what each question gets alone and what transformers gives."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from safety_harness.errors import DataError, NotFinite, SourceError
from safety_harness.models.chat import Chat
from safety_harness.models.decoding.batch import pad_between, pad_left
from safety_harness.models.decoding.drafts import Drafts
from safety_harness.models.generate import (
    Generator,
    Screen,
    agreed,
    padding_limit,
    shared_beginning,
)
from safety_harness.models.load import LoadedModel, load
from tests.builders import ARCHITECTURES, CONTEXT, LONG, SHORT, WINDOW, make_tokenizer

Pairs = Callable[[str, bool], tuple[Path, Path]]
QUESTIONS = [LONG, SHORT, "what ?", "3 plus 4", f"{SHORT} {SHORT}", "i", LONG[::-1][:40]]
NEW = 14


def generator(loaded: LoadedModel, batch_size: int) -> Generator:
    return Generator(loaded.model, loaded.tokenizer, batch_size=batch_size)


def tokens(asked: Generator, questions: Sequence[str], new: int = NEW) -> list[list[int]]:
    """The answers as tokens, taken where they become text: random answers are seldom valid UTF-8."""
    heard = Generator(asked.model, in_tokens(asked.tokenizer), batch_size=asked.batch_size)
    return [json.loads(answer) for answer in heard.answers(questions, new)]


def in_tokens(tokenizer: Any) -> Any:
    """*tokenizer*, with the list of the tokens themselves as the text of an answer."""
    tokenizer = copy.copy(tokenizer)
    tokenizer.decode = lambda ids, **_how: json.dumps(ids)
    return tokenizer


def reference(loaded: LoadedModel, question: Sequence[int], new: int = NEW) -> list[int]:
    """transformers' own greedy answer to one question, unpadded, up to its end token."""
    ids = torch.tensor([list(question)])
    output = loaded.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new
    )[0, ids.shape[1] :].tolist()
    stop = loaded.model.generation_config.eos_token_id
    ends = [i for i, token in enumerate(output) if token in (stop if isinstance(stop, list) else [stop])]
    return output[: ends[0]] if ends else output


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batches_equal_transformers_one_by_one(pairs: Pairs, architecture: str, tied: bool) -> None:
    loaded = load(pairs(architecture, tied)[0], "float32")
    alone = generator(loaded, 1)
    lengths = [len(alone.encode(question)) for question in QUESTIONS]
    assert min(lengths) <= WINDOW < 4 * WINDOW < max(lengths)
    expected = [reference(loaded, alone.encode(question)) for question in QUESTIONS]
    for batch_size in (1, 2, 3, 64):
        assert tokens(generator(loaded, batch_size), QUESTIONS) == expected, batch_size
    if not tied:
        assert len({tuple(answer) for answer in expected}) > 3  # the models do not all say one thing


@pytest.mark.parametrize("architecture", ["mistral", "gemma2", "gemma3_text"])
def test_the_sliding_window_matters_here(pairs: Pairs, architecture: str, tmp_path: Path) -> None:
    """Else the test above would prove nothing about windows."""
    folder = Path(shutil.copytree(pairs(architecture, False)[0], tmp_path / "wide"))
    config = folder / "config.json"
    narrow = f'"sliding_window": {WINDOW}'
    assert narrow in config.read_text()
    config.write_text(config.read_text().replace(narrow, f'"sliding_window": {CONTEXT}'))
    one, other = load(pairs(architecture, False)[0], "float32"), load(folder, "float32")
    assert tokens(generator(one, 2), [LONG]) != tokens(generator(other, 2), [LONG])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_shared_beginning_goes_through_the_model_once(
    pairs: Pairs, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system prompt before every question changes no token, and is not paid for once a question."""
    loaded = load(pairs(architecture, False)[0], "float32")
    loaded.tokenizer.chat_template = f"{{{{ bos_token }}}}{'be kind. ' * 6}" + make_tokenizer().chat_template
    alone = generator(loaded, 1)
    encoded = [alone.encode(question) for question in QUESTIONS]
    expected = [reference(loaded, question) for question in encoded]
    read = []
    original = type(loaded.model).forward
    monkeypatch.setattr(
        type(loaded.model),
        "forward",
        lambda self, *a, **k: (read.append(k["input_ids"].numel()), original(self, *a, **k))[1],
    )
    assert tokens(generator(loaded, 64), QUESTIONS) == expected
    reach = padding_limit(loaded.model.config.get_text_config())
    padded = len(QUESTIONS) * max(len(question) for question in encoded)
    assert sum(read[:2]) < padded - 100 or (reach is not None and read[0] == padded)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_screen_breaks_off_what_does_not_go_on(pairs: Pairs, architecture: str) -> None:
    """Whatever was guessed, a row that is broken off has said its first tokens, and the others all of theirs."""
    loaded = load(pairs(architecture, False)[0], "float32")
    alone = generator(loaded, 1)
    whole = [reference(loaded, alone.encode(question)) for question in QUESTIONS]

    def goes_on(said: str) -> bool:
        return sum(json.loads(said)) % 2 == 0

    broken_off = 0
    for cut in (1, 3, NEW - 1):
        expected = [
            answer if len(answer) < cut or goes_on(json.dumps(answer[:cut])) else answer[:cut] for answer in whole
        ]
        for batch_size in (1, 3, 64):
            asked = generator(loaded, batch_size)
            asked.chat = Chat(in_tokens(asked.tokenizer))
            for _ in ("unheard", "known"):
                screened = asked.answers(QUESTIONS, NEW, Screen(cut, goes_on))
                assert [json.loads(answer) for answer in screened] == expected
            assert [json.loads(answer) for answer in asked.answers(QUESTIONS, NEW)] == whole
        broken_off += sum(len(one) < len(other) for one, other in zip(expected, whole, strict=True))
    assert broken_off


def test_a_batch_is_given_up_once_more_than_so_many_are_broken_off(pairs: Pairs) -> None:
    loaded = load(pairs("llama", False)[0], "float32")
    asked = generator(loaded, 64)
    asked.chat = Chat(in_tokens(asked.tokenizer))
    whole = [json.loads(answer) for answer in asked.answers(QUESTIONS, NEW)]

    def screened(most: int | None) -> list[list[int]]:
        asked._drafts = Drafts()  # so that all rows reach the screen in the same pass
        screen = Screen(3, lambda said: sum(json.loads(said)) % 2 == 0, most)
        return [json.loads(answer) for answer in asked.answers(QUESTIONS, NEW, screen)]

    heard = screened(None)
    broken_off = sum(len(one) < len(other) for one, other in zip(heard, whole, strict=True))
    assert 1 < broken_off < len(QUESTIONS)
    assert screened(broken_off) == heard
    given_up = screened(broken_off - 1)
    assert given_up == [answer[:3] for answer in whole]
    assert given_up != heard


# --- guesses at an answer -------------------------------------------------------------------------


def misleading(answers: Sequence[Sequence[int]], how: str) -> list[list[int]]:
    """Earlier answers that are right up to a point, which differs from row to row."""
    other = {
        "right": lambda a, _: a,
        "wrong": lambda a, _: [(token + 1) % 300 for token in a],
        "short": lambda a, i: a[:i],
    }
    other["astray"] = lambda a, i: [*a[: i % 5], *(token ^ 1 for token in a[i % 5 :]), 7, 7, 7]
    return [list(other[how](answer, i)) for i, answer in enumerate(answers)]


@pytest.mark.parametrize("how", ["right", "wrong", "short", "astray", "all"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_guess_changes_a_token(pairs: Pairs, architecture: str, how: str) -> None:
    loaded = load(pairs(architecture, False)[0], "float32")
    asked = generator(loaded, 1)
    encoded = [asked.encode(question) for question in QUESTIONS]
    expected = [reference(loaded, question) for question in encoded]
    for batch_size in (2, 64):
        asked = generator(loaded, batch_size)
        asked.chat = Chat(in_tokens(asked.tokenizer))
        for kind in ("short", "wrong", "astray", "right") if how == "all" else (how,):
            for question, answer in zip(encoded, misleading(expected, kind), strict=True):
                asked._drafts.remember(question, answer)
        assert [json.loads(answer) for answer in asked.answers(QUESTIONS, NEW)] == expected


def test_guesses_end_where_an_answer_ends(pairs: Pairs) -> None:
    """An end token within a guess, and a limit that is shorter than the guess."""
    loaded = load(pairs("llama", False)[0], "float32")
    alone = generator(loaded, 64)
    full = [reference(loaded, alone.encode(question)) for question in QUESTIONS]
    loaded.model.generation_config.eos_token_id = [full[0][5], full[1][2]]
    expected = [reference(loaded, alone.encode(question)) for question in QUESTIONS]
    for new in (1, 3, NEW):
        asked = generator(loaded, 64)
        for question, answer in zip(QUESTIONS, full, strict=True):
            asked._drafts.remember(asked.encode(question), answer)
        asked.chat = Chat(in_tokens(asked.tokenizer))
        assert [json.loads(answer) for answer in asked.answers(QUESTIONS, new)] == [e[:new] for e in expected]


@pytest.mark.parametrize(("dtype", "passes"), [("float32", 1), ("bfloat16", NEW)])
def test_an_answer_given_before_is_read_in_one_pass(
    pairs: Pairs, dtype: str, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But in bfloat16, where the way of decoding may change an answer, nothing is guessed."""
    asked = generator(load(pairs("llama", False)[0], dtype), 64)
    first = asked.answers(QUESTIONS, NEW)
    steps = []
    original = type(asked.model).forward
    monkeypatch.setattr(
        type(asked.model), "forward", lambda self, *a, **k: (steps.append(1), original(self, *a, **k))[1]
    )
    assert asked.answers(QUESTIONS, NEW) == first
    assert len(steps) == passes


def test_order_and_repetition_of_questions_do_not_matter(pairs: Pairs) -> None:
    asked = generator(load(pairs("llama", False)[0], "float32"), 3)
    answers = asked.answers(QUESTIONS, NEW)
    assert len(set(answers)) > 3
    assert asked.answers(QUESTIONS[::-1], NEW) == answers[::-1]
    assert asked.answers([SHORT, SHORT], NEW) == [answers[1]] * 2
    assert asked.answers([], NEW) == []


def test_text_is_the_decoded_answer_without_special_tokens(pairs: Pairs) -> None:
    loaded = load(pairs("llama", False)[0], "float32")
    asked = generator(loaded, 2)
    for question, answer in zip(QUESTIONS, asked.answers(QUESTIONS, NEW), strict=True):
        ids = reference(loaded, asked.encode(question))
        assert answer == loaded.tokenizer.decode(ids, skip_special_tokens=True).strip()


# --- where an answer ends -------------------------------------------------------------------------


@pytest.mark.parametrize("as_list", [True, False])
def test_stops_at_any_end_token(pairs: Pairs, as_list: bool) -> None:
    """End tokens are chosen among those that the answers hold, so that rows of one batch end at different steps."""
    loaded = load(pairs("qwen3", False)[0], "float32")
    loaded.tokenizer.eos_token = None
    alone = generator(loaded, 1)
    full = [reference(loaded, alone.encode(question)) for question in QUESTIONS]
    ends = [full[0][5], full[1][2]] if as_list else [full[0][5]]
    loaded.model.generation_config.eos_token_id = ends if as_list else ends[0]
    expected = [reference(loaded, alone.encode(question)) for question in QUESTIONS]
    assert len(expected[0]) <= 5
    assert {len(answer) for answer in expected} >= {NEW}
    for batch_size in (1, 3, 64):
        assert tokens(generator(loaded, batch_size), QUESTIONS) == expected


def test_the_tokenizers_own_end_token_counts_too(pairs: Pairs) -> None:
    loaded = load(pairs("qwen3", False)[0], "float32")
    first = reference(loaded, generator(loaded, 1).encode(SHORT))[3]
    loaded.tokenizer.eos_token = loaded.tokenizer.convert_ids_to_tokens(first)
    assert len(tokens(generator(loaded, 2), [SHORT, LONG])[0]) <= 3


def test_an_answer_that_ends_at_once_is_empty(pairs: Pairs) -> None:
    loaded = load(pairs("llama", False)[0], "float32")
    firsts = [reference(loaded, generator(loaded, 1).encode(question), 1)[0] for question in QUESTIONS]
    loaded.model.generation_config.eos_token_id = firsts
    assert generator(loaded, 3).answers(QUESTIONS, NEW) == [""] * len(QUESTIONS)


def test_generation_ends_early_when_all_rows_have_ended(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(pairs("llama", False)[0], "float32")
    asked = generator(loaded, 64)
    loaded.model.generation_config.eos_token_id = [row[2] for row in tokens(asked, QUESTIONS)]
    steps = []
    original = type(loaded.model).forward
    monkeypatch.setattr(
        type(loaded.model), "forward", lambda self, *a, **k: (steps.append(1), original(self, *a, **k))[1]
    )
    generator(loaded, 64).answers(QUESTIONS, NEW)
    assert 1 <= len(steps) <= 3


def test_a_model_without_any_end_or_pad_token_answers_to_the_limit(pairs: Pairs) -> None:
    loaded = load(pairs("llama", False)[0], "float32")
    expected = [reference(loaded, generator(loaded, 1).encode(question)) for question in QUESTIONS]
    loaded.model.generation_config.eos_token_id = None
    loaded.tokenizer.eos_token = loaded.tokenizer.pad_token = None
    assert [len(answer) for answer in tokens(generator(loaded, 3), QUESTIONS)] == [NEW] * len(QUESTIONS)
    assert tokens(generator(loaded, 3), QUESTIONS) == expected


# --- what goes in ---------------------------------------------------------------------------------


def test_the_chat_template_is_used_and_ends_where_the_answer_begins(pairs: Pairs) -> None:
    asked = generator(load(pairs("llama", True)[0], "float32"), 1)
    assert asked.tokenizer.decode(asked.encode(SHORT)) == f"<bos><user>{SHORT}<end><assistant>"
    assert asked.encode(SHORT).count(asked.tokenizer.bos_token_id) == 1


def test_a_model_without_a_chat_template_continues_the_question(pairs: Pairs) -> None:
    loaded = load(pairs("llama", False)[0], "float32")
    loaded = LoadedModel(loaded.model, make_tokenizer(template=False), loaded.checkpoint)
    asked = generator(loaded, 2)
    assert asked.encode(SHORT) == loaded.tokenizer(SHORT)["input_ids"]
    assert tokens(asked, [LONG, SHORT]) == [reference(loaded, asked.encode(text)) for text in (LONG, SHORT)]


def test_a_question_that_does_not_fit_is_named(pairs: Pairs) -> None:
    asked = generator(load(pairs("llama", True)[0], "float32"), 2)
    room = CONTEXT - len(asked.encode(LONG))
    asked.answers([LONG, SHORT], room)
    with pytest.raises(DataError, match=f"context of {CONTEXT}") as caught:
        asked.answers([SHORT, LONG], room + 1)
    assert LONG[:60] in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "shared"),
    [([[1, 2, 3], [1, 2, 4], [1, 2]], 2), ([[1], [2]], 0), ([[5, 6]], 2), ([[1, 2], [1, 2]], 2), ([[], [1]], 0)],
)
def test_shared_beginning(rows: list[list[int]], shared: int) -> None:
    assert shared_beginning(rows) == shared


def test_pad_between() -> None:
    found, mask = pad_between([[5, 6, 7], [8]], [(1,), (2, 3)], 9, torch.device("cpu"))
    assert found.tolist() == [[5, 6, 7, 1, 9], [9, 9, 8, 2, 3]]
    assert mask.tolist() == [[1, 1, 1, 1, 0], [0, 0, 1, 1, 1]]


@pytest.mark.parametrize(("guess", "agreeing"), [((), 0), ((1, 2), 2), ((1, 3), 1), ((2, 2), 0), ((1, 2, 5), 2)])
def test_agreed(guess: tuple[int, ...], agreeing: int) -> None:
    assert agreed(guess, [1, 2, 4, 9]) == agreeing


def test_pad_left() -> None:
    found, mask = pad_left([[5, 6, 7], [8]], 9, torch.device("cpu"))
    assert found.tolist() == [[5, 6, 7], [9, 9, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert found.dtype == mask.dtype == torch.int64


# --- What goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_out_of_memory_halves_the_batch_and_goes_on(pairs: Pairs, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    loaded = load(pairs("llama", True)[0], "float32")
    expected = tokens(generator(loaded, 64), QUESTIONS)
    decode = Generator._decode

    def scarce(self: Generator, rows: Sequence[Sequence[int]], *rest: Any) -> list[list[int]]:
        if len(rows) > 2:
            if kind == "cpu":
                torch.empty(2**50, dtype=torch.uint8)
            raise torch.OutOfMemoryError("tried to allocate 40 GiB")
        return decode(self, rows, *rest)

    monkeypatch.setattr(Generator, "_decode", scarce)
    asked = Generator(loaded.model, in_tokens(loaded.tokenizer), batch_size=len(QUESTIONS))
    with pytest.warns(
        UserWarning, match=r"Out of memory with (7 questions at once; going on with 3|3 .* with 1)"
    ) as warned:
        assert [json.loads(answer) for answer in asked.answers(QUESTIONS, NEW)] == expected
    assert len(warned) == 2
    assert asked.batch_size == 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no"), RuntimeError("another")])
def test_what_a_smaller_batch_cannot_help_is_raised(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def never(*_: Any) -> list[list[int]]:
        raise error

    monkeypatch.setattr(Generator, "_decode", never)
    asked = generator(load(pairs("llama", True)[0], "float32"), 1)
    with pytest.raises(RuntimeError if str(error) == "another" else SourceError, match=r"fewer workers|another"):
        asked.answers(QUESTIONS, NEW)


def test_a_pad_token_without_a_row_is_never_read(pairs: Pairs) -> None:
    """Some tokenizers got one that the embeddings never learnt of."""
    loaded = load(pairs("llama", False)[0], "float32")
    expected = tokens(generator(loaded, 64), QUESTIONS)
    tokenizer = copy.copy(loaded.tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id >= loaded.model.get_input_embeddings().num_embeddings
    assert tokens(Generator(loaded.model, tokenizer, batch_size=64), QUESTIONS) == expected


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_out_of_range_is_told(pairs: Pairs, number: float) -> None:
    loaded = load(pairs("llama", True)[0], "float32")
    with torch.no_grad():
        loaded.model.model.layers[1].mlp.down_proj.weight[3, 4] = number
    with pytest.raises(NotFinite):
        generator(loaded, 4).answers(QUESTIONS, NEW)
