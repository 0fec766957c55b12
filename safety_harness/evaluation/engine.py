"""Ask an engine the gate's questions, of a student with any units in it; measure everything else in this process."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from safety_harness.conversation import Asked, Asking, Decoding, asked_text
from safety_harness.errors import HarnessError, SourceError, remark
from safety_harness.evaluation.answering import Answering
from safety_harness.evaluation.asking import all_asked, askings, sample_of
from safety_harness.evaluation.memo import Answered
from safety_harness.evaluation.patched import beginnings, patched_folder
from safety_harness.files import cache_dir, locked, sha256_text
from safety_harness.gate.records import Lineage
from safety_harness.models.likelihood import TextScore
from safety_harness.progress import counter
from safety_harness.registry.backend import Backend
from safety_harness.registry.load import Student
from safety_harness.registry.prompts import PromptSet
from safety_harness.registry.server import SEEDS, Served
from safety_harness.registry.splits import StudentSplits
from safety_harness.served.client import Client
from safety_harness.served.engine import Engine, running
from safety_harness.served.reply import Reply
from safety_harness.weights.units import Unit

if TYPE_CHECKING:
    from safety_harness.evaluation.evaluator import Evaluator

# Answers that the harness's own loop begins as well, and the tokens that it generates of each. A flip in the last bit
# of a bfloat16 number has not often parted two answers by then.
SAMPLE, SAMPLE_TOKENS = 16, 32
BATCH_INVARIANT = "VLLM_BATCH_INVARIANT"
"""Variable by which vLLM computes a row alike in any batch."""


class EngineEvaluator(Answering):
    """A student whose answers come from an engine. One is started for each set of units, asked everything, and ended.

    No answer of the harness's own loop is used for one of the engine's, nor the other way round.
    """

    def __init__(self, own: Evaluator, backend: Backend) -> None:
        self._own = own
        self.student: Student = own.student
        self.questions: StudentSplits = own.questions
        self.units: tuple[Unit, ...] = own.units
        self.lineage: Lineage | None = own.lineage
        self._backend = backend
        self._answers: dict[frozenset[Unit], dict[str, str]] = {}
        """Of each set of units the answers, by the key of what was asked."""
        self._version = ""
        self._failed: HarnessError | None = None

    @property
    def weighed(self) -> Evaluator:
        """The evaluator that holds the weights: it searches, and measures what an engine does not."""
        return self._own

    @property
    def batch_size(self) -> int:
        """How many questions are asked at once."""
        return self._backend.concurrency

    def answers(
        self, units: Sequence[Unit], prompts: PromptSet, *, decoding: Decoding | None = None
    ) -> tuple[Answered, ...]:
        """Return the judged answers of the engine to *prompts* with *units* moved, in the order of the prompts.

        Raises:
            SourceError: the engine does not answer, or not as the harness's own loop does.
        """
        asked = askings(self.student, prompts, decoding)
        known = self._asked(units, asked)
        return tuple(self.weighed.judged(prompt, known[one.key]) for prompt, one in zip(prompts, asked, strict=True))

    def shown(self, answer: str) -> str:
        """Return what is no thought in an *answer*."""
        return self.weighed.shown(answer)

    def text(self, units: Sequence[Unit], documents: PromptSet) -> tuple[TextScore, ...]:
        """Return the log-likelihood of each document with *units* moved, by the harness's own loop."""
        return self.weighed.text(units, documents)

    def divergences(self, units: Sequence[Unit], prompts: PromptSet) -> tuple[float, ...]:
        """Return the KL of each answer from the student's own, by the harness's own loop."""
        return self.weighed.divergences(units, prompts)

    def identity(self) -> dict[str, Any]:
        """Return everything that a measurement depends on, as plain values; the engine and its version among it."""
        if not self._version:
            self._asked((), ())
        set_here = [f"{BATCH_INVARIANT}=1"] if os.environ.get(BATCH_INVARIANT) == "1" else []
        told = [*set_here, *(part for part in self._backend.command if "=" in part), *self._backend.arguments]
        engine = {
            "kind": self._backend.kind,
            "version": self._version,
            "dtype": self.student.family.dtype,
            "arguments": " ".join(told),
        }
        return {**self.weighed.identity(), "engine": engine}

    def close(self) -> None:
        """Release the model and the answers."""
        self._answers.clear()
        self.weighed.close()

    def _asked(self, units: Sequence[Unit], asked: Sequence[Asking]) -> Mapping[str, str]:
        """Return the answers of the engine with *units* moved: to all that the gate asks, and to all that is *asked*.

        Raises:
            HarnessError: there are none. It is not tried again: each try takes minutes.
        """
        moved = frozenset(units)
        known = self._answers.get(moved, {})
        announced = all_asked(self.student, self.questions)
        wanted = {one.key: one for one in (*(() if moved in self._answers else announced), *asked)}
        if unknown := [one for key, one in wanted.items() if key not in known]:
            if self._failed:
                raise self._failed
            for one in unknown:
                self.weighed.generator.check_lengths([one.asked], self._most_tokens(one))
            try:
                found = self._ask(units, unknown, sample_of(announced, SAMPLE))
            except HarnessError as error:
                self._failed = error
                raise
            known = self._answers[moved] = {**known, **found}
        return known

    def _most_tokens(self, one: Asking) -> int:
        return one.decoding.tokens if one.decoding else self.student.family.max_new_tokens

    def _ask(self, units: Sequence[Unit], asked: Sequence[Asking], sample: Sequence[Asking]) -> dict[str, str]:
        """Return the engine's answers to *asked*, which it is started for. The *sample* is asked after them."""
        replies: dict[str, Reply] = {}
        again: dict[str, Reply] = {}
        with patched_folder(self.weighed, units) as folder, self._running(folder) as engine:
            client = Client(
                self._server(engine, asked),
                self.student.family.max_new_tokens,
                limit=2 * (len(asked) + len(sample)),
                request=lambda one: self._request(engine, one),
                begun=lambda one: self.weighed.generator.chat.begun(one.asked),
                direct=not self._backend.url,
            )
            try:
                with counter("asking the engine", len(asked)) as advance:

                    def note(one: Asking, reply: Reply) -> None:
                        replies[one.key] = reply
                        advance(1)

                    client.ask(asked, note)
                client.ask(sample, lambda one, reply: again.__setitem__(one.key, reply))
            except SourceError as error:
                raise engine.explained(error) from error
            self._require_one_version(engine)
            answers = {one.key: self._text(one, replies[one.key]) for one in asked}
            self._compare(units, [(one, self._text(one, again[one.key])) for one in sample], answers, engine)
        return answers

    def _server(self, engine: Engine, asked: Sequence[Asking]) -> Served:
        """Return how *engine* is asked. `transformers serve` has one seed for all requests, which each one sets."""
        alone = self._backend.kind == "transformers" and not all(one.greedy for one in asked)
        return engine.server.model_copy(update={"concurrency": 1}) if alone else engine.server

    @contextlib.contextmanager
    def _running(self, folder: Path) -> Iterator[Engine]:
        """Yield an engine that answers for the checkpoint in *folder*. Its log stays where something fails."""
        self.weighed.generator.forget()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the engine may be on the same GPU
        log = cache_dir() / "engines" / f"{self.student.id.replace('/', '-')}-{secrets.token_hex(4)}.log"
        with self._alone(), running(self._backend, folder, self.student.family.dtype, log) as engine:
            yield engine
        log.unlink(missing_ok=True)

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """Let one engine at a time run on the GPUs of this process: each takes most of their memory."""
        if self._backend.url:
            return contextlib.nullcontext()
        devices = f"{platform.node()} {os.environ.get('CUDA_VISIBLE_DEVICES')}"
        return locked(cache_dir() / "engines" / f"gpu-{sha256_text(devices)[:12]}")

    def _request(self, engine: Engine, one: Asking) -> tuple[str, Mapping[str, Any]]:
        """Return path and body of the request whose prompt has the very tokens of the harness's own loop."""
        generator = self.weighed.generator
        ends, most, how = sorted(generator.stop_tokens), self._most_tokens(one), one.decoding
        body: dict[str, Any] = {
            "model": engine.server.model, "max_tokens": most, "temperature": 0, "seed": 0, "stream": False,
        }  # fmt: skip
        drawn = how is not None and not how.greedy
        if how and drawn:
            body |= {"temperature": how.temperature, "seed": how.seed(one.asked) % SEEDS}
        if self._backend.kind == "vllm":
            body |= {
                "prompt": generator.encode(one.asked), "return_token_ids": True, "stop_token_ids": ends,
                "ignore_eos": True, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
            }  # fmt: skip
            # An engine that was started elsewhere may have habits of the model's generation_config.json.
            body |= {"top_p": 1.0, "top_k": -1, "min_p": 0.0} if drawn else {}
        else:
            settings: dict[str, Any] = {
                "do_sample": drawn, "max_new_tokens": most, "eos_token_id": ends or None, "pad_token_id": 0,
            }  # fmt: skip
            settings |= {"top_p": 1.0, "top_k": 0} if drawn else {}
            body |= {"prompt": self._prompt(one.asked), "generation_config": json.dumps(settings)}
        return "/completions", body

    def _prompt(self, asked: Asked) -> str:
        """Return a text that the engine's tokenizer reads as the tokens of the harness's own loop.

        Raises:
            SourceError: there is none.
        """
        generator, chat = self.weighed.generator, self.weighed.generator.chat
        text, begin = chat.prompt(asked), generator.tokenizer.bos_token or ""
        lost = bool(chat.begun(asked)) and chat.drops_first_space
        for prompt in (text, text.removeprefix(begin)):
            if list(generator.tokenizer(prompt)["input_ids"]) == generator.encode(asked) and not lost:
                return prompt
        what = "send a begun answer without the space behind its beginning" if lost else "read it as other tokens"
        raise SourceError(
            f"{self.student.id}: `transformers serve` takes and sends texts. Of {asked_text(asked)[:60]!r} it would "
            f'{what}. Take `kind = "vllm"`, which takes and sends tokens.'
        )

    def _text(self, one: Asking, reply: Reply) -> str:
        """Return the text of an answer, decoded as the harness's own.

        Raises:
            SourceError: vLLM sent no tokens.
        """
        if self._backend.kind != "vllm":
            return reply.text
        if reply.tokens is None:
            raise SourceError(
                "The engine sends no tokens of its answers (`return_token_ids`), without which they could be read "
                "otherwise than the harness's own. Take vLLM from 0.10.2 on."
            )
        stop = self.weighed.generator.stop_tokens
        end = next((at for at, token in enumerate(reply.tokens) if token in stop), None)
        return self._decoded(one, reply.tokens[:end])

    def _decoded(self, one: Asking, tokens: Sequence[int]) -> str:
        """Return the text of an answer's *tokens*, with what it was begun by."""
        generator = self.weighed.generator
        return generator.chat.text(tokens, generator.encode(one.asked), generator.chat.begun(one.asked))

    def _require_one_version(self, engine: Engine) -> None:
        if self._version not in ("", engine.version):
            raise SourceError(
                f"The engine was version {self._version} before, and is {engine.version} now. Run again with one."
            )
        self._version = engine.version

    def _compare(
        self, units: Sequence[Unit], again: Sequence[tuple[Asking, str]], answers: Mapping[str, str], engine: Engine
    ) -> None:
        """Compare a sample with what the harness's own loop answers, and say how many begin alike.

        Raises:
            SourceError: too few do.
        """
        tokens = min(SAMPLE_TOKENS, self.student.family.max_new_tokens)
        own = beginnings(self.weighed, units, [one.asked for one, _ in again], tokens)
        whole = tokens == self.student.family.max_new_tokens
        alike = sum(
            self._alike(answer, self._decoded(one, first), whole=len(first) < tokens or whole)
            for (one, answer), first in zip(again, own, strict=True)
        )
        changed = sum(answers.get(one.key, answer) != answer for one, answer in again)
        who = f"{self._backend.kind} {self._version} in {self.student.family.dtype}"
        what = "the patched student" if units else "the student as it is"
        said = f"{alike} of {len(again)} answers of {who} begin as the harness's own ({tokens} tokens)"
        if alike < self._backend.agreement * len(again):
            where = f" Its log: {engine.log}" if engine.log else ""
            raise SourceError(
                f"{self.student.id}: {what}: only {said}. It has other weights, another number format or other rules, "
                f"so nobody can say what was gated (`agreement` = {self._backend.agreement:g}).{where}"
            )
        twice = f"; asked twice, {changed} came out otherwise" if changed else ""
        remark(f"{self.student.id}: {what}: {said}{twice}.")

    @staticmethod
    def _alike(answer: str, own: str, *, whole: bool) -> bool:
        """Return whether *answer* begins as the *own* one; where that is the *whole*, whether it ends there."""
        return answer == own if whole else answer.startswith(own.rstrip("\ufffd").rstrip())
