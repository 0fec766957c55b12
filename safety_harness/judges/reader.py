"""Load a model that judges, once it is first asked, and read cases with it in batches."""

from __future__ import annotations

import functools
import gc
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from safety_harness.errors import ConfigError, SourceError, remark
from safety_harness.files import sha256_text
from safety_harness.judges.kept import Judged
from safety_harness.judges.put import Put, Putter, Tokens
from safety_harness.judging.judge import Case, Judgement, Verdict
from safety_harness.registry.fetch import resolve
from safety_harness.registry.judges import ModelJudge
from safety_harness.weights.checkpoint import Checkpoint

VERSION = 1
"""To be raised when the code that puts and reads cases changes a verdict. It is part of a judge's fingerprint."""
# A tokenizer without a limit of its own names a number of this size or more.
_NO_LIMIT = 1_000_000
# What a killed run has judged by then is kept. Of more batches, rows of one length find each other.
BATCHES_AT_ONCE = 8


class LocalJudge:
    """What the judges share that are models on this machine.

    Everything but the model is there without torch, so that whoever plans a run can take the fingerprint.
    """

    ends: tuple[str, ...]
    """Ends of the names of classes that a judge of this kind may have."""

    answered_as: tuple[str, ...] = ()
    """No server calls it by a name."""

    def __init__(self, name: str, row: ModelJudge) -> None:
        self.name, self.row = name, row
        self.cuts = 0
        """How many cases were too long, and read at both ends."""

    @functools.cached_property
    def checkpoint(self) -> Checkpoint:
        """The model's folder, fetched if it is not there yet.

        Raises:
            SourceError: it cannot be fetched, is no model folder, holds no safetensors, or a model of another kind.
        """
        folder = resolve(self.row)
        if not folder.is_dir():
            raise SourceError(f"{folder}: is no model folder. A judge is read from a folder with safetensors.")
        checkpoint = Checkpoint(folder, as_it_is=True)
        classes = checkpoint.config.get("architectures")
        if isinstance(classes, list) and classes and not str(classes[0]).endswith(self.ends):
            raise SourceError(
                f"{folder}: is a {classes[0]}, and a judge of kind {getattr(self.row, 'kind', '')!r} needs a model "
                f"whose class ends with {' or '.join(self.ends)}. Take another model, or correct `kind`."
            )
        return checkpoint

    @property
    def fingerprint(self) -> str:
        """The digest of whatever changes a verdict: the model's files, the row, and the code that reads."""
        row = self.row
        # In float32 a verdict does not depend on the batch in which it was read.
        batch = None if row.dtype == "float32" else row.batch_size
        facts = [VERSION, self.checkpoint.fingerprint, row.threshold, row.dtype, row.max_tokens, batch, self._form()]
        return sha256_text(json.dumps(facts))

    def _form(self) -> Any:
        """Return whatever else of the row changes a verdict, as JSON has it."""
        raise NotImplementedError

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, which neither cuts nor pads.

        Raises:
            SourceError: transformers cannot read it, or it has tokens that the model lacks.
        """
        import transformers

        from safety_harness.models.read import reason
        from safety_harness.models.vocabulary import check_tokenizer

        folder = self.checkpoint.folder
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
        except Exception as error:  # the Rust tokenizer raises this very class
            raise SourceError(
                f"{folder}: transformers cannot load its tokenizer ({reason(error)}). Get its files."
            ) from error
        rows = self._text_config().get("vocab_size")
        if isinstance(rows, int):
            check_tokenizer(tokenizer, rows, folder)
        return tokenizer

    def _text_config(self) -> dict[str, Any]:
        """Return the config of the part that reads text, which is one of several in a multimodal model."""
        config = self.checkpoint.config
        part = config.get("text_config")
        return {**config, **part} if isinstance(part, dict) else dict(config)

    @property
    def limit(self) -> int:
        """The most tokens that are read of a case, form included.

        Raises:
            ConfigError: the row asks for more than the model can read, or nothing says how many that is.
        """
        config = self._text_config()
        positions = int(config.get("max_position_embeddings") or config.get("n_positions") or 0)
        if str(config.get("model_type", "")).endswith(("roberta", "camembert")):
            positions -= int(config.get("pad_token_id") or 0) + 1  # they count positions from behind the padding's
        known = [one for one in (positions, self.tokenizer.model_max_length) if 0 < one < _NO_LIMIT]
        context, wanted = min(known, default=0), self.row.max_tokens
        if wanted and context and wanted > context:
            raise ConfigError(
                f"judge {self.name!r}: `max_tokens` is {wanted}, and the model reads {context}. Lower it."
            )
        if not (wanted or context):
            raise ConfigError(
                f"judge {self.name!r}: the config does not say how many tokens it reads. Set `max_tokens`."
            )
        return wanted or context

    @functools.cached_property
    def putter(self) -> Putter:
        """What puts cases into the form of the judge."""
        raise NotImplementedError

    def check(self) -> None:
        """Check what can be known without the weights: config, tokenizer, form.

        Raises:
            HarnessError: the model cannot judge as the row says.
        """
        _ = self.putter

    def auto(self) -> Any:
        """Return the class of transformers that finds the model's own."""
        raise NotImplementedError

    @functools.cached_property
    def model(self) -> Any:
        """The model, on the GPU if there is one.

        Raises:
            SourceError: it cannot be loaded, or there is no room for it.
        """
        import torch

        from safety_harness.models.read import no_room, read_model
        from safety_harness.models.vocabulary import check_vocabulary, rows_of

        self.check()
        folder = self.checkpoint.folder
        model, _ = read_model(folder, getattr(torch, self.row.dtype), as_it_is=True, auto=self.auto())
        check_vocabulary(self.tokenizer, rows_of(model), folder)
        if torch.cuda.is_available() and model.device.type != "cuda":
            try:
                model = model.to("cuda")
            except torch.OutOfMemoryError as error:
                raise no_room(folder) from error
        return model.eval().requires_grad_(False)

    def close(self) -> None:
        """Release the model. It is loaded again when a case comes."""
        self.__dict__.pop("model", None)
        gc.collect()
        if "torch" in sys.modules and (cuda := sys.modules["torch"].cuda).is_available():
            cuda.empty_cache()

    def judge_many(self, cases: Sequence[Case], judged: Judged = lambda *_: None) -> list[Judgement]:
        """Return the judgement of each case, in order. *judged* is called with those of some batches at a time.

        Raises:
            SourceError: the model cannot be loaded, or memory ended.
        """
        found: list[Judgement] = []
        while len(found) < len(cases):
            some = self._some(cases[len(found) : len(found) + BATCHES_AT_ONCE * self.row.batch_size])
            for at, one in enumerate(some, len(found)):
                judged(at, one)
            found += some
        return found

    def _some(self, cases: Sequence[Case]) -> list[Judgement]:
        """Return the judgement of each of some *cases*."""
        puts = [self.putter.put(case.question, case.answer) for case in cases]
        cut = sum(1 for put in puts if put.cut)
        if cut and not self.cuts:
            remark(
                f"judge {self.name!r}: an answer is longer than the {self.limit} tokens that it reads. Of such answers "
                "it reads both ends, and the reason of the judgement says so."
            )
        self.cuts += cut
        judged = [Judgement(Verdict.UNSCORED, put.fault or "the answer is empty") for put in puts]
        places = [at for at, put in enumerate(puts) if not put.fault and put.answer]
        for at, found in zip(places, self._read([puts[at] for at in places]) if places else [], strict=True):
            reason = f"{found.reason} ({puts[at].cut})" if puts[at].cut else found.reason
            judged[at] = Judgement(found.verdict, reason, found.harmful, found.probability)
        return judged

    def _read(self, puts: Sequence[Put]) -> list[Judgement]:
        """Return what the model makes of each case."""
        raise NotImplementedError

    def logits(self, rows: Sequence[Tokens], pass_of: Callable[[dict[str, Any], list[int]], Any]) -> list[list[float]]:
        """Return for each row what *pass_of* gives of its batch: the inputs, and the last place of each row.

        Raises:
            SourceError: memory ended.
        """
        import torch

        from safety_harness.models.memory import enough_memory

        found: list[list[float]] = [[] for _ in rows]
        with torch.inference_mode(), enough_memory("a judge reads", ", or lower the judge's `batch_size`"):
            for batch in self._batches(rows):
                inputs = self._padded([rows[at] for at in batch])
                lasts = [len(rows[at]["input_ids"]) - 1 for at in batch]
                for at, values in zip(batch, pass_of(inputs, lasts).float().tolist(), strict=True):
                    found[at] = values
        return found

    def _batches(self, rows: Sequence[Tokens], new: int = 1) -> Iterator[list[int]]:
        """Yield the places of the rows that are read together, those of about one length, before *new* tokens."""
        from safety_harness.models.decoding.lengths import rotary_switch, rows_together

        lengths = [len(row["input_ids"]) for row in rows]
        places = sorted(range(len(rows)), key=lambda at: lengths[at])
        config = self.model.config.get_text_config()
        # A classifier that is made of a causal model finds the end of a row by its padding.
        most = self.row.batch_size if config.pad_token_id is not None or self._knows_ends else 1
        switch = rotary_switch(config)
        while places:
            batch = places[: min(most, rows_together([lengths[at] for at in places], new, switch))]
            yield batch
            del places[: len(batch)]

    _knows_ends = False
    """Whether a row's last place is read by its number, and no padding token is needed to find it."""

    def _padded(self, rows: Sequence[Tokens]) -> dict[str, Any]:
        """Return the inputs of one pass, padded at the right."""
        import torch

        width = max(len(row["input_ids"]) for row in rows)
        known = inspect.signature(self.model.forward).parameters
        filler = {"input_ids": self.model.config.get_text_config().pad_token_id or 0}
        rows = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]
        return {
            name: torch.tensor(
                [row[name] + [filler.get(name, 0)] * (width - len(row[name])) for row in rows],
                device=self.model.device,
            )
            for name in rows[0]
            if name in known
        }
