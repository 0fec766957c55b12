"""The table of a server that answers for a student."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from safety_harness.errors import ConfigError
from safety_harness.registry.settings import Count, Settings

if TYPE_CHECKING:
    from safety_harness.conversation import Asked, Decoding

# They have keys of their own, or would make of one answer another thing than an answer.
_OWN = frozenset(("model", "messages", "temperature", "max_tokens", "seed", "stream", "n", "tools", "functions"))
# vLLM's fields: the last message is an answer, and goes on.
_CONTINUED = {"add_generation_prompt": False, "continue_final_message": True}
# Some servers take seeds of 31 bits alone.
SEEDS = 2**31
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CHAT = "/chat/completions"


def _address(url: str) -> str:
    """Return the address of an interface, as ``http://localhost:8000/v1``, without an end of its own."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (raises for one that there is not)
    except ValueError as error:
        raise ValueError(f"no address ({error})") from None
    if parts.username is not None or parts.password is not None or parts.query:
        raise ValueError("holds a key: put it into an environment variable, and name that variable as `key_env`")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment or not url.isprintable():
        raise ValueError("must be like http://localhost:8000/v1")
    if " " in url or not url.isascii():
        raise ValueError("must be of ASCII letters, without a space")
    return url.rstrip("/").removesuffix(_CHAT)


Address = Annotated[str, AfterValidator(_address)]


class Served(Settings):
    """A server with the interface of OpenAI: questions go to URL/chat/completions, with temperature 0 unless drawn."""

    url: Address = Field(description="Address of the interface, such as `http://localhost:8000/v1`.")
    model: str = Field(min_length=1, max_length=500, description="Name by which the server knows the model.")
    key_env: str | None = Field(
        None,
        description="Environment variable that holds the key, such as `OPENAI_API_KEY`. Unset: no key is sent.",
    )
    concurrency: Count = Field(4, description="How many questions are asked at once.")
    requests_per_minute: Count | None = Field(None, description="Largest number of requests a minute. Unset: no limit.")
    timeout: float = Field(120.0, gt=0, le=86_400, description="Seconds after which an answer counts as lost.")
    retries: int = Field(
        5, ge=0, le=100, description="How often a question is asked again after an answer that was lost."
    )
    seed: int = Field(
        0,
        description="Seed of the sampling, for a server that samples at temperature 0 too. Answers that are drawn have "
        "seeds of their own, to which it is added.",
    )
    omit: tuple[Literal["seed", "temperature", "top_p", "max_tokens"], ...] = Field(
        (), description="Fields of a request that this server does not take, and that are left out."
    )
    prefill: Literal["continue_final_message", "no"] = Field(
        "no",
        description="How the server is told to continue an answer that an attack begins: by vLLM's field "
        "`continue_final_message`. A server that does not know it would begin another answer.",
    )
    extra: Mapping[str, Any] = Field(
        {}, description="More fields of a request, such as `max_completion_tokens` instead of `max_tokens`."
    )

    @model_validator(mode="after")
    def _can_be_sent(self) -> Self:
        if self.key_env is not None and not _VARIABLE.fullmatch(self.key_env):  # here, where no value is quoted
            raise ValueError("`key_env` is no name of an environment variable; the key itself stands in none of these")
        if own := sorted((_OWN | _CONTINUED.keys()) & self.extra.keys()):
            raise ValueError(f"`extra` holds {own[0]!r}, which is not for it to say")
        try:
            json.dumps(dict(self.extra), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"`extra` is no JSON ({error})") from None
        if "max_tokens" in self.omit and not isinstance(self.extra.get("max_completion_tokens"), int):
            raise ValueError("without `max_tokens` an answer has no end: give `extra = { max_completion_tokens = … }`")
        return self

    @property
    def host(self) -> str:
        """The address without what stands before it, as reports show it."""
        return self.url.partition("://")[2]

    def require(self, question: Asked, decoding: Decoding | None = None) -> None:
        """Check that the server takes *question*, and answers it by *decoding*.

        Raises:
            ConfigError: a conversation begins the answer, and the server does not continue one. Or answers are to be
                drawn, and the server takes no temperature.
        """
        if not isinstance(question, str) and question.prefill and self.prefill == "no":
            raise ConfigError(
                f"{self}: {question.name} begins the answer, and this server is not known to continue one. Leave "
                'the attack out or, for a server like vLLM, set `prefill = "continue_final_message"`.'
            )
        if decoding and not decoding.greedy and "temperature" in self.omit:
            raise ConfigError(
                f"{self}: answers are to be drawn at temperature {decoding.temperature:g}, and this server is sent "
                "none (`omit`). Remove it there, or draw no answers."
            )

    def most_tokens(self, max_new_tokens: int, decoding: Decoding | None = None) -> int:
        """Return how many tokens an answer may have: of *decoding*, or *max_new_tokens* of the family's way."""
        most = decoding.tokens if decoding else max_new_tokens
        other = self.extra.get("max_completion_tokens")
        if not isinstance(other, int):
            return most
        return max(other, most) if decoding else other  # a server that counts thoughts needs its own number

    def body(self, question: Asked, max_new_tokens: int, decoding: Decoding | None = None) -> dict[str, Any]:
        """Return the request that puts *question*, to be answered in at most *max_new_tokens* tokens or by *decoding*.

        Raises:
            ConfigError: as :meth:`require`.
        """
        self.require(question, decoding)
        messages = [{"role": "user", "content": question}] if isinstance(question, str) else question.messages
        begun: Mapping[str, bool] = {}
        if not isinstance(question, str) and question.prefill:
            begun = _CONTINUED
            messages.append({"role": "assistant", "content": question.prefill})
        own: dict[str, Any] = {"temperature": 0, "max_tokens": max_new_tokens, "seed": self.seed}
        extra = dict(self.extra)
        if decoding:
            own["max_tokens"] = decoding.tokens
            extra |= {name: self.most_tokens(0, decoding) for name in extra if name == "max_completion_tokens"}
        if decoding and not decoding.greedy:
            own |= {"temperature": decoding.temperature, "seed": (decoding.seed(question) + self.seed) % SEEDS}
        return {
            "model": self.model,
            "messages": messages,
            **{name: value for name, value in own.items() if name not in self.omit},
            "stream": False,
            **begun,
            **extra,
        }

    def __str__(self) -> str:
        return f"{self.host}/{self.model}"
