"""A chat template is tried before it is trusted: every fault is one line, in time and within memory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from safety_harness.errors import SourceError
from safety_harness.models import template_trial
from safety_harness.models.chat import Chat
from safety_harness.models.template_trial import try_template
from tests.builders import TEMPLATE, make_tokenizer

TURN = (
    "{% for m in messages %}<{{ m['role'] }}>{{ CONTENT }}<end>{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
)


def turn(content: str = "m['content']") -> str:
    return TURN.replace("CONTENT", content)


def tried(template: str, tokenizer: Any = None) -> None:
    try_template(template, tokenizer or make_tokenizer(), Path("model/chat_template.jinja"))


USUAL = {
    "this suite's": TEMPLATE,
    "trimmed": turn("m['content'] | trim"),
    "with a system prompt": "{{ bos_token }}You are kind.\n" + turn(),
    "end of text between turns": "{% for m in messages %}Q: {{ m.content }}{{ eos_token }}\n{% endfor %}A:\n",
    "end of text between any two turns": "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
    "an end of text, then the answer": "{{ messages[0].content }}{{ eos_token }}{% if messages | length > 1 %}"
    "{{ messages[1].content }}{% endif %}",
    "single line ends": turn("m.content.strip().replace('\r\n', '\n').replace('\n\n', '\n')"),
    "without tabs": turn("m.content | replace('\t', ' ')"),
    "text or parts": turn("m.content if m.content is string else m.content[0].text"),
    "without answers": "{{ raise_exception('no') if messages | length > 1 }}" + turn(),
    "dated": "{{ strftime_now('%d %b %Y') }}" + turn(),
    "marked for training": turn() + "{% generation %}{% endgeneration %}",
    "a loop that stops": "{% for i in range(9) %}{% break %}{% endfor %}" + turn(),
    "names that nobody gives": "{% if tools %}{{ tools | tojson }}{% endif %}{{ documents or '' }}" + turn(),
}
BROKEN = {
    "syntax": ("{% for %}", r"cannot be used \(.*TemplateSyntaxError in line 1\)"),
    "raising": ("{{ raise_exception('never\nmore') }}", r"cannot be used \(never; TemplateError\)"),
    "a macro that calls itself": ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "RecursionError"),
    "nested without end": (f"{{{{ {'(' * 9999}1{')' * 9999} }}}}", "cannot be used|ends the process"),
    "division by zero": ("{{ 1 / 0 }}", "ZeroDivisionError"),
    "an attack": ("{{ ().__class__.__bases__ }}" + turn(), "SecurityError"),
    "no question": ("Hello.", "leaves the question out"),
    "content as parts": (turn("m['content'][0]['text']"), "leaves the question out"),
    "system alone": (
        "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}A:",
        "leaves the question",
    ),
    "lower case": (turn("m['content'] | lower"), "or changes it"),
    "cut": (turn("m['content'][:2000]"), "or changes it"),
    "first line": (turn("m['content'].split('\n')[0]"), "or changes it"),
    "single spaces": (turn("m['content'].split() | join(' ')"), "or changes it"),
    "without tags": (turn("m['content'] | striptags"), "or changes it"),
    "escaped": (turn("m['content'] | e"), "or changes it"),
    "as JSON": (turn("m['content'] | tojson"), "or changes it"),
    "twice": (turn() + "{{ messages[0]['content'] }}", "more than once"),
    "end of text": ("{% for m in messages %}{{ m['content'] }}{{ eos_token }}\n{% endfor %}", r"end of text \(<eos>\)"),
    "end of text where an answer should begin": (turn() + "{{ eos_token if add_generation_prompt }}", r"end of text"),
    "end of text, and no begin of an answer": (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}",
        "end of text",
    ),
    "end of text, and no answers": (
        "{{ raise_exception('no') if messages | length > 1 }}{{ messages[0].content }}{{ eos_token }}",
        "end of text",
    ),
    "up to the blank line": (turn("m['content'].split('\n\n')[0]"), "or changes it"),
    "spaced and twice": (turn("m['content'] | replace('\t', ' ')") + "{{ messages[0]['content'] }}", "more than once"),
    "a mountain of text": ("{{ 'x' * 10 ** 7 }}" + turn(), "characters around the question"),
    "a row of powers": ("{{ 10 ** (10 ** 8) }}" + turn(), "takes more than 1 seconds"),
    "two loops": ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "takes more than"),
    "two loops over an answer": (
        turn() + "{% if messages | length > 1 %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}"
        "{% endfor %}{% endif %}",
        "takes more than 1 seconds",
    ),
    "a large string": ("{{ 'x' * 10 ** 10 }}" + turn(), "needs too much memory"),
    "a string that doubles": (
        "{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}" + turn(),
        "needs too much memory|takes more than",
    ),
    "a large number in words": ("{{ '%0999999999d' % 1 }}" + turn(), "needs too much memory|takes more than"),
}


@pytest.mark.parametrize("template", USUAL.values(), ids=list(USUAL))
def test_usual_templates_pass(template: str) -> None:
    tried(template)


@pytest.mark.parametrize(("template", "reason"), BROKEN.values(), ids=list(BROKEN))
def test_a_template_that_cannot_be_trusted_is_refused(
    template: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name the file in one line, in time."""
    monkeypatch.setattr(template_trial, "MAX_SECONDS", 1)
    began = time.perf_counter()
    with pytest.raises(SourceError, match=rf"^model/chat_template\.jinja: its chat template .*({reason})") as caught:
        tried(template)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - began < 20


def test_a_template_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try a template, and then the same one without a process to try it in."""
    tried(turn() + " ")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("tried again"))
    tried(turn() + " ")
    with pytest.raises(pytest.fail.Exception):
        tried(turn() + "  ")


def test_every_question_is_put_as_it_is() -> None:
    """Refuse questions that the template treats in another way than the probes."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = turn(
        "raise_exception('not this') if 'bad' in m['content'] else m['content'] | replace('cook', 'c')"
    )
    chat = Chat(tokenizer)
    assert chat.tokens(" how ? ")
    with pytest.raises(SourceError, match=r"cannot put the question 'a bad one' \(TemplateError: not this\)"):
        chat.tokens("a bad one")
    with pytest.raises(SourceError, match="changes the question 'how do i cook"):
        chat.tokens("how do i cook")
