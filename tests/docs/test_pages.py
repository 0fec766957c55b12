"""Check that the pages lead where they say, stay short, and that what they show to copy works."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from safety_harness import __version__
from safety_harness.registry.load import load_registry

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted(
    page
    for pattern in (
        "*.md",
        ".github/*.md",
        "docs/*.md",
        "reports/*.md",
        "benchmarks/**/*.md",
        "safety_harness/families/*/README.md",
    )
    for page in ROOT.glob(pattern)
)
GUIDES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAX_README_LINES = 130
FIRST_SCREEN_LINES = 60
MAX_CHANGELOG_WORDS = 25


@pytest.fixture(scope="module")
def counter(docs_script: Callable[[str], ModuleType]) -> ModuleType:
    """Return docs/sentences.py as a module."""
    return docs_script("sentences")


def running_text(page: Path) -> str:
    """Return a page without its fenced code and inline code, in which brackets are no links."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda code: re.sub(r"[\[\]()]", "", code.group()), text)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page; repeated headings are numbered."""
    seen: Counter[str] = Counter()
    made = set()
    for heading in re.findall(r"^#+ +(.+?) *#*$", running_text(page), flags=re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        made.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    """Follow every relative link of a page, to its file and to the heading in it."""
    text = running_text(page)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    broken = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_named_in_text_exist(page: Path) -> None:
    """Find each file that a page names with its folder, in the repository or in a room of the package."""
    names = re.findall(r"`((?:[\w.-]+/)+[\w-]+\.(?:py|toml|md|jsonl?|txt|sha256))`", page.read_text(encoding="utf-8"))
    places = {root: {path.name for path in root.iterdir() if path.is_dir()} for root in (ROOT, ROOT / "safety_harness")}
    missing = [
        name
        for name in names
        if any(name.split("/")[0] in folders for folders in places.values())
        and not any((root / name).exists() for root in places)
    ]
    assert missing == []


def test_links_are_checked_in_every_folder() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/results.md", "reports/README.md"} <= {
        str(page.relative_to(ROOT)) for page in PAGES
    }
    assert len(PAGES) > 30


def test_anchors_are_github_s(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A, b: `c_d`\n\n## Same\n\n```\n# code\n```\n\n## Same\n\n## [L](x.md) - m\n")
    assert anchors(page) == {"a-b-c_d", "same", "same-1", "l---m"}


def test_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


def test_readme_shows_the_users_own_model_first() -> None:
    """The commands that gate a model of the reader's own stand on the first screen, before any result."""
    lines = README.read_text(encoding="utf-8").splitlines()
    commands = [
        number
        for number, line in enumerate(lines, 1)
        if line.startswith(("$ safety-harness init", "$ safety-harness gate"))
    ]
    assert len(commands) == 2
    assert max(commands) <= FIRST_SCREEN_LINES
    assert max(commands) < lines.index("## What it reached")


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_registry_to_copy_loads(page: str, tmp_path: Path) -> None:
    """The first TOML of a page is a registry: with files where it names them, it is read and says what it shows."""
    found = re.search(r"```toml\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert found is not None
    for name in re.findall(r'"((?:questions|models)/[^"]+)"', found.group(1)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if path.suffix:
            path.write_text('{"id": "one", "text": "How?", "answer": "so"}\n')
        else:
            path.mkdir()
    registry = tmp_path / "mine.toml"
    registry.write_text(found.group(1))
    (student,) = load_registry(registry).select()
    assert student.id == "mine/our-release"
    assert student.spec.task is not None
    assert student.family.preset == "standard"


def test_few_sentences_are_long(counter: ModuleType) -> None:
    """At most 3 % of the sentences of README and docs have over 30 words: python docs/sentences.py lists them."""
    counts = [counter.long_sentences(page) for page in counter.pages()]
    total, long_ones = sum(count for count, _ in counts), [each for _, found in counts for each in found]
    assert total > 300
    assert len(long_ones) <= counter.MAX_LONG_SHARE * total, "\n".join(long_ones)


def test_sentences_are_counted_as_a_reader_would(counter: ModuleType) -> None:
    """Headings, tables, code and HTML are no sentences; an item of a list is one; a link counts as its text."""
    page = (
        "# No. Not this.\n\nOne two. Three, e.g. four? (Five.) Six\nseven [eight nine](a.md#b).\n\n- ten\n"
        "- eleven 1.5 x\n1. twelve\n\n| a. | c |\n\n```console\n$ x.y\n```\n\n<img alt='a.'>\n\n`a. b.` ends … here.\n"
    )
    found = list(counter.sentences(page))
    assert found == [
        "One two", "Three, e.g. four", "(Five", "Six seven eight nine",
        "ten", "eleven 1.5 x", "twelve", "code ends … here",
    ]  # fmt: skip
    assert [counter.word_count(each) for each in found] == [2, 3, 1, 4, 1, 3, 1, 3]


def test_versions_agree() -> None:
    """The package, CITATION.cff and the newest heading of CHANGELOG.md name one version."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert newest is not None
    assert {str(citation["version"]), newest.group(1)} == {__version__}


def test_changelog_entries_are_short() -> None:
    """An entry says one outcome for a user, in at most 25 words."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = [" ".join(entry.split()) for entry in re.findall(r"^- (.*(?:\n  .*)*)", text, flags=re.MULTILINE)]
    assert entries
    assert [entry for entry in entries if len(entry.split()) > MAX_CHANGELOG_WORDS] == []


@pytest.mark.parametrize("name", [".pre-commit-config.yaml", "docs/gate.yml", "CITATION.cff"])
def test_files_for_other_tools_are_yaml(name: str) -> None:
    assert isinstance(yaml.safe_load((ROOT / name).read_text(encoding="utf-8")), dict)


@pytest.mark.parametrize("form", ["bug", "wrong-verdict"])
def test_issue_forms_ask_for_something(form: str) -> None:
    """A form has what GitHub requires: a name, a description, and fields with distinct ids."""
    text = (ROOT / ".github" / "ISSUE_TEMPLATE" / f"{form}.yml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    assert content["name"]
    assert content["description"]
    fields = [field["id"] for field in content["body"] if field["type"] != "markdown"]
    assert len(fields) == len(set(fields)) > 2
