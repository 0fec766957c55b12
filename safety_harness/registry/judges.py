"""The tables of the judges that a registry file names: `[judges.NAME]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from safety_harness.registry.paths import RegistryPath, Text
from safety_harness.registry.server import Served
from safety_harness.registry.settings import Count, Fraction, Settings
from safety_harness.registry.sources import Source

RULES = "rules"
"""Name of the judge that every registry has: the grammar of refusing."""
Axis = Literal["refused", "harmful"]


class RulesJudge(Settings):
    """The rules of the package, under another name."""

    kind: Literal["rules"]


class ModelJudge(Source):
    """A judge that is a model on this machine. It is loaded beside the student, or while the student stands aside."""

    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Number format in which it runs.")
    batch_size: Count = Field(16, description="Answers judged at once.")
    memory_gib: float = Field(
        2.0, gt=0, le=100_000, description="Memory that it needs, in GiB, next to what its student needs."
    )
    max_tokens: Count | None = Field(
        None,
        description="Tokens that it reads of a question and its answer. Of a longer answer it reads both ends, and the "
        "cuts are counted. Unset: as many as its configuration allows.",
    )
    threshold: Fraction = Field(0.5, gt=0, lt=1, description="Probability from which a label holds, between 0 and 1.")


class ClassifierJudge(ModelJudge):
    """A sequence-classification model, such as Minos-v1: one label an answer."""

    kind: Literal["classifier"]
    form: Text = Field(
        "pair",
        description="How question and answer are put to it: `pair`, two texts; or a text that holds `{question}` and "
        "`{answer}` once each.",
    )
    refused: tuple[Text, ...] = Field((), description="Its labels that mean a refusal. Unset: the label `refusal`.")
    partial: tuple[Text, ...] = Field((), description="Its labels that mean a refusal in part.")
    complied: tuple[Text, ...] = Field((), description="Its labels that mean an answer. Unset: all its other labels.")


class GuardJudge(ModelJudge):
    """A causal model that says of a conversation whether the answer refuses, whether it is harmful, or both."""

    kind: Literal["guard"]
    form: Text = Field(description="How it is asked and read: a row of the table of guards, such as `qwen3guard`.")
    prompt: RegistryPath | None = Field(
        None,
        description="A file with the prompt of its model card, which holds `{question}` and `{answer}` once each. "
        "Unset: its chat template.",
    )


class EndpointJudge(Served):
    """Any model behind a server with the interface of OpenAI, asked one question about an answer a request."""

    kind: Literal["endpoint"]
    axes: tuple[Axis, ...] = Field(
        ("refused",), min_length=1, description="What it is asked, each by a request of its own: `refused`, `harmful`."
    )
    reads: Literal["line", "json"] = Field(
        "line",
        description="How it says its verdict: `line`, on the last line of its answer; `json`, as structured output, "
        "which the server has to offer (`response_format`).",
    )
    logprobs: Literal["yes", "no"] = Field(
        "no",
        description="Whether the server is asked for probabilities of tokens, from which that of a verdict is read.",
    )
    max_new_tokens: Count = Field(512, description="Largest number of tokens of its answer.")
    max_requests: Count = Field(
        20_000, description="Requests that one run may send to it at most. A run that would need more does not begin."
    )


KINDS: Mapping[str, type[Settings]] = {
    "rules": RulesJudge,
    "classifier": ClassifierJudge,
    "guard": GuardJudge,
    "endpoint": EndpointJudge,
}


def _kind(row: Any) -> str | None:
    """Return the kind of a row, by which its other keys are known; None where there is no judge of that kind."""
    kind = row.get("kind") if isinstance(row, Mapping) else getattr(row, "kind", None)
    return kind if isinstance(kind, str) and kind in KINDS else None


JudgeRow = Annotated[
    Annotated[RulesJudge, Tag("rules")]
    | Annotated[ClassifierJudge, Tag("classifier")]
    | Annotated[GuardJudge, Tag("guard")]
    | Annotated[EndpointJudge, Tag("endpoint")],
    Discriminator(_kind, custom_error_type="kind", custom_error_message=f"`kind` must be one of {', '.join(KINDS)}"),
]
"""A table ``[judges.NAME]``."""
