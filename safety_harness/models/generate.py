"""Batched answers through the model's own chat template: the likeliest tokens, or drawn ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from safety_harness.conversation import Asked, Decoding, as_sent, asked_text
from safety_harness.models.chat import Chat
from safety_harness.models.decoding.batch import DecodingBatch
from safety_harness.models.decoding.cuda_graphs import GraphCache
from safety_harness.models.decoding.drafts import MAX_DRAFT_TOKENS, accepted
from safety_harness.models.decoding.lengths import (
    crosses,
    padding_limit,
    require_room,
    rotary_switch,
    rows_together,
    shared_beginning,
)
from safety_harness.models.decoding.sampling import Sampling
from safety_harness.models.decoding.screen import Screen as Screen
from safety_harness.models.memory import halved, is_out_of_memory, memory_error
from safety_harness.models.speedups import Speedups
from safety_harness.models.vocabulary import require_rows, rows_of, stop_tokens_of
from safety_harness.progress import counter

# Version of the decoding. Raise it when the last bits of the numbers change, so that old measurements are not reused.
DECODING = 3


class Generator:
    """Answers questions. Order, batch size and padding are fixed, so that an answer is reproducible, a drawn one too.

    bfloat16 answers depend on the batch they ran in, so the batch size is part of a measurement's identity.
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int, speedups: Speedups | None = None) -> None:
        self.model = model
        self.config = model.config.get_text_config()
        """The config of the part that answers, which is one of several in a multimodal model."""
        self.tokenizer = tokenizer
        self.chat = Chat(tokenizer)
        self.batch_size = batch_size
        self._switch = rotary_switch(self.config)
        self.speedups = Speedups.for_model(model) if speedups is None else speedups
        """The parts that make decoding cheaper."""
        self.stop_tokens = stop_tokens_of(model, tokenizer)
        """Tokens that end an answer. Without any, every answer has all of its tokens."""
        self._encoded: dict[Asked, list[int]] = {}

    def encode(self, question: Asked) -> list[int]:
        """Return the tokens of a question in the chat template, up to where the answer begins or goes on.

        Raises:
            SourceError: the model has no row for one of the tokens, or the question cannot be put as it is.
        """
        question = as_sent(question)
        if question not in self._encoded:
            self._encoded[question] = self._with_rows(self.chat.tokens(question), asked_text(question))
        return self._encoded[question]

    def encode_text(self, text: str) -> list[int]:
        """Return the tokens of a text that is read without the chat template.

        Raises:
            SourceError: as :meth:`encode`.
        """
        return self._with_rows(self.chat.plain(text), text)

    def _with_rows(self, tokens: list[int], text: str) -> list[int]:
        """Return *tokens* if the model has rows for them."""
        where = f"{self.tokenizer.name_or_path}: {text[:60]!r}"
        require_rows(tokens, self.tokenizer, rows_of(self.model), where)
        return tokens

    @property
    def end(self) -> int | None:
        """The token with which the chat template ends an answer, if the model has a row for it."""
        end = self.chat.end(self.stop_tokens)
        return end if end is not None and end < rows_of(self.model) else None

    def answers(self, questions: Sequence[Asked], decoding: Decoding | int, screen: Screen | None = None) -> list[str]:
        """Return one answer a question, in order. With a *screen*, some answers are cut off there.

        An answer that a conversation begins is returned with its beginning. A bare number of tokens decodes greedily.

        Raises:
            DataError: a question and its answer do not fit the model's context.
            NotFinite: the model computed a NaN or an infinity.
            SourceError: memory ran out for a single question.
        """
        how = Decoding(decoding) if isinstance(decoding, int) else decoding
        self.check_lengths(questions, how.tokens)
        encoded = [self.encode(question) for question in questions]
        begun = [self.chat.begun(question) for question in questions]
        # Questions of about one length need the least padding.
        unanswered = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        answers = [""] * len(encoded)
        freed = False
        with counter("asking", len(encoded)) as advance:
            while unanswered:
                together = rows_together([len(encoded[i]) for i in unanswered], how.tokens, self._switch)
                rows = unanswered[: min(together, self.batch_size)]
                sampling = Sampling.of(how, [questions[i] for i in rows])
                begun_here = [begun[i] for i in rows]
                try:
                    decoded = self.decode([encoded[i] for i in rows], how.tokens, screen, begun_here, sampling)
                except (MemoryError, RuntimeError) as error:
                    if not is_out_of_memory(error):
                        raise
                    if not freed and self.forget():
                        freed = True  # CUDA graphs held memory: try this batch again before halving it
                    elif len(rows) == 1:
                        raise memory_error("one question is answered", ", or lower `max_new_tokens`") from error
                    else:
                        self.batch_size = halved(len(rows))
                    continue
                for row, tokens in zip(rows, decoded, strict=True):
                    answers[row] = self.chat.text(tokens, encoded[row], begun[row])
                del unanswered[: len(rows)]
                advance(len(rows))
        return answers

    def decode(
        self,
        rows: Sequence[Sequence[int]],
        max_new_tokens: int,
        screen: Screen | None = None,
        begun: Sequence[str] = (),
        sampling: Sampling | None = None,
    ) -> list[list[int]]:
        """Return the tokens that follow each of *rows*, which go through the model as one batch: the likeliest ones.

        With *sampling*, each token is drawn.

        A screen sees behind what *begun* says of each row, if anything: words of its answer that the row ends with.

        A pass reads what a row has not read yet and a draft of what may follow. Of the draft, only the tokens that the
        model chooses itself are kept, so every pass gains at least one token.

        Raises:
            NotFinite: the model computed a NaN or an infinity.
        """
        with torch.inference_mode(), self.speedups.packing(self.model):
            if any(crosses(len(row), max_new_tokens, self._switch) for row in rows):
                own = [sampling and sampling.of_row(at) for at in range(len(rows))]
                return [self._across(row, max_new_tokens, how) for row, how in zip(rows, own, strict=True)]
            return self._decode(rows, max_new_tokens, screen, begun or [""] * len(rows), sampling)

    def _across(self, row: Sequence[int], max_new_tokens: int, sampling: Sampling | None) -> list[int]:
        """Decode a row that crosses the rotary switch: beyond it all is read again, as transformers does for Phi-3.

        No screen looks at its answer, which is generated in full.
        """
        assert self._switch is not None
        up_to_switch = self._switch + 1 - len(row)
        (answer,) = self._decode([row], up_to_switch, None, [""], sampling)
        if len(answer) < up_to_switch:
            return answer
        rest_of_it = sampling and sampling.after(up_to_switch)
        (rest,) = self._decode([[*row, *answer]], max_new_tokens - up_to_switch, None, [""], rest_of_it)
        return [*answer, *rest]

    def _decode(
        self,
        rows: Sequence[Sequence[int]],
        max_new_tokens: int,
        screen: Screen | None,
        begun: Sequence[str],
        sampling: Sampling | None,
    ) -> list[list[int]]:
        """Do the work of :meth:`decode`, in its contexts."""
        shared = self.shared_prefix(rows, max_new_tokens)
        graphs = self.speedups.graphs if sampling is None else None  # graphs give the likeliest tokens
        # Only an answer drawn by the same numbers is much like one that is drawn. Of each seed there is one question.
        keys = rows if sampling is None else [[seed, sampling.before] for seed in sampling.seeds]
        columns = max(map(len, rows)) + max_new_tokens
        batch = DecodingBatch(self.model, self._prefill(rows, shared, graphs), len(rows), shared, graphs, columns)
        answers: list[list[int]] = [[] for _ in rows]
        unread = [list(row[shared:]) for row in rows]
        active = list(range(len(rows)))
        cut_off = 0
        while active:
            drafts = self._drafts(
                [keys[i] for i in active], [answers[i] for i in active], unread, batch.columns, max_new_tokens
            )
            draw = sampling.at([(row, len(answers[row])) for row in active]) if sampling else None
            chosen = batch.read(unread, drafts, draw)
            counts = [accepted(draft, tokens) for draft, tokens in zip(drafts, chosen, strict=True)]
            going = []
            for place, (row, count) in enumerate(zip(active, counts, strict=True)):
                new_tokens = chosen[place][: count + 1]
                end = next((i for i, token in enumerate(new_tokens) if token in self.stop_tokens), None)
                before = len(answers[row])  # a pass may jump over the length at which the screen looks
                answers[row] += new_tokens[:end]
                reached = screen is not None and before < screen.tokens <= len(answers[row])
                seen = answers[row][: screen.tokens] if screen and reached else []
                if screen and reached and not screen.goes_on(self.chat.text(seen, rows[row], begun[row]), begun[row]):
                    del answers[row][screen.tokens :]
                    cut_off += 1
                elif end is None and len(answers[row]) < max_new_tokens:
                    going.append(place)
            batch.reject(counts, max(map(len, drafts)))
            if screen and screen.most is not None and cut_off > screen.most:
                break
            if going and len(going) < len(active):
                batch.keep(going)
            active = [active[place] for place in going]
            unread = [answers[row][-1:] for row in active]
        if self.speedups.drafts is not None:
            for key, answer in zip(keys, answers, strict=True):
                self.speedups.drafts.remember(key, answer)
        return answers

    def _drafts(
        self,
        keys: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        unread: Sequence[Sequence[int]],
        columns: int,
        max_new_tokens: int,
    ) -> list[tuple[int, ...]]:
        """Return a draft for each row.

        A rejected draft leaves masked columns in the cache. If a row could come so far that the model takes these
        columns for distance, no row has a draft.
        """
        memory = self.speedups.drafts
        if memory is None:
            return [()] * len(keys)
        most = MAX_DRAFT_TOKENS
        limit = padding_limit(self.config)
        if limit is not None:
            remaining = max_new_tokens - min(map(len, answers))
            most = max(0, min(most, limit - columns - max(map(len, unread)) - remaining))
        return memory.draft_each(keys, answers, most, max_new_tokens)

    def shared_prefix(self, rows: Sequence[Sequence[int]], new_tokens: int) -> int:
        """Return how many tokens of *rows* are read once for all rows: those that all rows begin with, or 0.

        The last token of a row is never among them. Padding then lies between these tokens and the rest of a row.
        Nothing is shared where a row and its *new_tokens* could reach so far that the model takes padding for distance.
        """
        saved_at_least = self.speedups.min_prefill_tokens_saved
        if saved_at_least is None:
            return 0
        lengths = [len(row) for row in rows]
        shared = min(shared_beginning(rows), min(lengths) - 1)
        limit = padding_limit(self.config)
        beyond = limit is not None and max(lengths) + new_tokens > limit
        # Read by themselves, these tokens would be rotated as those of a short row are.
        beyond |= self._switch is not None and shared <= self._switch < max(lengths)
        return 0 if beyond or shared * (len(rows) - 1) < saved_at_least else shared

    def prefill_shared(self, rows: Sequence[Sequence[int]], most: int) -> tuple[DynamicCache | None, int]:
        """Return a KV cache in which all *rows* have read their common beginning, and its length in tokens.

        The length is at most *most*. Where sharing is not worth a call of the model, they are None and 0. Gradients
        flow through the cache.
        """
        shared = min(self.shared_prefix(rows, 0), most)
        return (self._prefill(rows, shared), shared) if shared > 0 else (None, 0)

    def _prefill(self, rows: Sequence[Sequence[int]], shared: int, graphs: GraphCache | None = None) -> DynamicCache:
        """Return a KV cache in which all *rows* have read their first *shared* tokens, in one pass of one row."""
        cache = self.speedups.empty_cache(self.model.config)
        if shared:
            prefix = rows[0][:shared]
            if graphs is not None:
                graphs.prefix_graph(prefix).replay(cache)
            else:
                tokens = torch.tensor([prefix], device=self.model.device)
                self.model(input_ids=tokens, past_key_values=cache, logits_to_keep=1)
            cache.batch_repeat_interleave(len(rows))
        return cache

    def forget(self) -> bool:
        """Free the memory that CUDA graphs hold, and return whether there were any."""
        return self.speedups.forget()

    @property
    def context(self) -> int:
        """The most tokens that the model can read, or 0 where its config does not say."""
        return int(getattr(self.config, "max_position_embeddings", 0) or getattr(self.config, "max_seq_len", 0) or 0)

    def check_lengths(self, questions: Sequence[Asked], new: int) -> None:
        """Check that each question fits the model's context with an answer of *new* tokens.

        Raises:
            DataError: a question does not fit.
        """
        for question in questions:
            require_room(question, len(self.encode(question)), new, self.context)
