"""Render a chat template with probe questions, and print what is wrong with it: a script, run in a process of its own.

A template is a program that came with a model. It may compute for hours or fill the memory, in C code that no exception
reaches. So this process limits itself, and is killed. It imports nothing of ours and no transformers: that is quick.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
from collections.abc import Callable
from typing import Any

import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

# A template may tidy up white space here, as that of Falcon does: whether it keeps a question is seen when it is put.
SPACED = (
    "Is <b>2 & 3</b>  less than \"five\", or 'six'?\n\nWrite {{ x }}\tat 1 %: Größe, naïve, 北京, мир, 🙂, e\u0301."
)
PROBES = (
    "How do I bake a loaf of bread?",
    SPACED,
    # Long, so that a cut is seen, and time that grows with the square of the length.
    " ".join(f"{number}," for number in range(2000)) + "\nand what follows?",
)
# The function that tells today's date.
TODAY = "strftime_now"
ANSWER = "Yes"
# The longest system prompts that models came with are a fiftieth of this.
MAX_CHARACTERS = 2**20


class _Generation(jinja2.ext.Extension):
    """The tag with which a template marks answers for training: its text is rendered as it stands."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own declaration)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """Return the nodes between the tag and its end."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> jinja2.Environment:
    """Return where templates are compiled, as transformers does (utils/chat_template_utils.py)."""

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    as_json: Callable[..., str] = lambda value, ensure_ascii=False, **options: json.dumps(  # noqa: E731
        value, ensure_ascii=ensure_ascii, **options
    )
    environment.filters["tojson"] = as_json
    environment.globals["raise_exception"] = refuse
    environment.globals[TODAY] = datetime.datetime.now().strftime
    return environment


def asks_for_today(template: str) -> bool:
    """Return whether *template* uses the function that tells today's date, for more than a test of its presence."""
    tree = _environment().parse(template)
    tests = [test.node for test in tree.find_all(jinja2.nodes.Test) if test.name in ("defined", "undefined")]
    names = [name for name in tree.find_all(jinja2.nodes.Name) if name.name == TODAY]
    return any(all(name is not tested for tested in tests) for name in names)


def fault(template: str, special: dict[str, Any]) -> str:
    """Return what is wrong with *template*, or an empty string.

    Args:
        special: the tokenizer's special tokens, by what they are called in templates.
    """
    try:
        compiled = _environment().from_string(template)
        prompts = [_render(compiled, special, *_turns(probe)) for probe in PROBES]
    except MemoryError:
        return "needs too much memory"
    except Exception as error:  # jinja2 raises many kinds, and a template may raise what it likes
        reason = (str(error).splitlines() or ["no reason given"])[0][:200]
        line = f" in line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        return f"cannot be used ({reason}; {type(error).__name__}{line})"
    answered = ""
    with contextlib.suppress(Exception):  # a template may refuse answers, but it must do so in time
        answered = _render(compiled, special, *_turns(PROBES[0], ANSWER))
    end = special.get("eos_token")
    for probe, prompt in zip(PROBES, prompts, strict=True):
        asked, put = (" ".join(text.split()) if probe == SPACED else text for text in (probe, prompt))
        if put.count(asked) > 1:
            return "puts the question more than once"
        if asked not in put:
            return "leaves the question out, or changes it"
        if len(prompt) > len(probe) + MAX_CHARACTERS:
            return f"puts more than {MAX_CHARACTERS} characters around the question"
    # An end of text may be what stands between any two turns. Then the template puts an answer right behind it.
    asked = prompts[0].rstrip()
    if end and asked.endswith(end) and not answered.startswith(asked + ANSWER):
        return f"ends the question with an end of text ({end}), behind which no answer begins"
    return ""


def _turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in zip(("user", "assistant"), contents, strict=False)]


def _render(template: jinja2.Template, special: dict[str, Any], *turns: dict[str, str]) -> str:
    return template.render(
        messages=list(turns), tools=None, documents=None, add_generation_prompt=len(turns) == 1, **special
    )


def main() -> None:
    """Read limits, template and special tokens as JSON, and print the fault as JSON."""
    given = json.load(sys.stdin)
    with contextlib.suppress(ImportError):  # Windows has no such limits; there only the clock counts
        import resource

        for limit, most in ((resource.RLIMIT_CPU, given["seconds"]), (resource.RLIMIT_AS, given["bytes"])):
            with contextlib.suppress(ValueError, OSError):  # a stricter limit is set already
                resource.setrlimit(limit, (most, most))
    print(json.dumps(fault(given["template"], given["special"])))


if __name__ == "__main__":
    main()
