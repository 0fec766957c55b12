"""The table of an engine that answers a gate's held-out questions."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from safety_harness.registry.paths import Text
from safety_harness.registry.server import Address
from safety_harness.registry.settings import Count, Fraction, Settings


class Backend(Settings):
    """An engine in an environment of its own, which answers the gate's questions. A search keeps the harness's loop.

    Perplexity, divergence and minimality stay with the harness's loop, too.
    """

    kind: Literal["vllm", "transformers"] = Field(
        description="`vllm`, or `transformers` for `transformers serve`. Both have the interface of OpenAI."
    )
    command: tuple[Text, ...] = Field(
        (),
        description='Program and its first arguments, such as `["/opt/vllm/bin/vllm", "serve"]`. The harness adds '
        "folder, port and number format. Unset: `KIND serve` on the PATH.",
    )
    arguments: tuple[Text, ...] = Field(
        (), description='More arguments, such as `["--gpu-memory-utilization", "0.5"]`. Reports show them.'
    )
    url: Address | None = Field(
        None,
        description="Address of an engine that is up and has the student as it is, instead of `command`. A patched "
        "student needs one that is started.",
    )
    model: Text | None = Field(None, description="Name of the model at `url`.")
    start_within: float = Field(900.0, gt=0, le=86_400, description="Seconds within which a started engine answers.")
    timeout: float = Field(600.0, gt=0, le=86_400, description="Seconds after which an answer counts as lost.")
    concurrency: Count = Field(64, description="How many questions are asked at once.")
    agreement: Fraction = Field(
        0.75,
        description="Share of a sample of answers that have to begin as those of the harness's own loop, 0 to 1. With "
        "fewer, nothing is proven.",
    )

    @model_validator(mode="after")
    def _started_or_up(self) -> Self:
        if self.url and (self.command or self.arguments):
            raise ValueError("`url` names an engine that is up; leave out `command` and `arguments`")
        if bool(self.url) != bool(self.model):
            raise ValueError("`url` and `model` go together")
        return self

    @property
    def program(self) -> tuple[str, ...]:
        """The program that is started, with its first arguments."""
        return self.command or (self.kind, "serve")
