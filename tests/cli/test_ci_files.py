"""Check the CI files: what they trust, what other tools say of them, and that their steps gate a model."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from safety_harness.cli.init import template
from tests.cli.test_init import STUDENT, TASKS, TEACHER

ROOT = Path(__file__).parents[2]
SHOWN = "safety-harness[all] @ git+https://github.com/YOUR-ORG/safety_harness@COMMIT"
GITHUB, GITLAB = yaml.safe_load(template("github")), yaml.safe_load(template("gitlab"))
JOB, LAB = GITHUB["jobs"]["gate"], GITLAB["release gate"]
REGISTRY = f"""
[families.mine]
teacher = "{TEACHER}"
max_new_tokens = 16
harmful = "tiny"
harmless = "tiny"
text = "tiny"
{{rules}}
[families.mine.students.capitals]
path = "models/ours"
task = {{{{ search = "{TASKS}/capitals.search.jsonl", report = "{TASKS}/capitals.report.jsonl" }}}}
"""
# Installing is left out here, and everything else runs as it would.
PYTHON = """#!/bin/sh
echo "$@" >> "$LOG"
"""
COMMAND = f"""#!/bin/sh
exec {sys.executable} -m safety_harness "$@"
"""


def tool(name: str) -> str:
    """Return the path of a tool next to this Python, or skip the test where it is not installed."""
    if found := shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"):
        return found
    pytest.skip(f"{name} is not installed")


def laid_down(folder: Path) -> Path:
    """Write both files to where their servers look for them, and return the folder."""
    (folder / ".github" / "workflows").mkdir(parents=True)
    (folder / ".github" / "workflows" / "gate.yml").write_text(template("github"))
    (folder / ".gitlab-ci.yml").write_text(template("gitlab"))
    return folder


# --- What they say ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "shown"), [("github", "gate.yml"), ("gitlab", "gate.gitlab.yml")])
def test_the_documents_show_what_init_writes(kind: str, shown: str) -> None:
    """Compare the copies that a reader finds in docs/."""
    assert (ROOT / "docs" / shown).read_text(encoding="utf-8") == template(kind, SHOWN)


def test_actions_are_pinned_by_hash_with_their_version() -> None:
    """Look at every action that is used."""
    used = re.findall(r"uses: (.*)", template("github"))
    assert len(used) == 6
    assert all(re.fullmatch(r"actions/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one) for one in used)


def test_a_pull_request_gets_no_more_than_it_needs() -> None:
    """Check permissions, credentials and triggers."""
    assert GITHUB["permissions"] == {}
    assert JOB["permissions"] == {"contents": "read"}
    assert set(GITHUB[True]) == {"pull_request", "push", "workflow_dispatch"}  # YAML 1.1 reads `on` as true
    assert GITHUB[True]["push"] == {"tags": ["v*"]}
    assert "secrets." not in template("github")
    for step in JOB["steps"]:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        assert "${{" not in step.get("run", "")  # what a pull request names is never part of a script


def test_rules_questions_and_versions_are_the_bases() -> None:
    """Check where registry, constraints and models are taken from."""
    base, change = (step["with"] for step in (JOB["steps"][1], JOB["steps"][0]))
    assert base["ref"] == "${{ github.event.pull_request.base.sha || github.event.repository.default_branch }}"
    assert (base["path"], change["path"]) == ("base", "change")
    for steps in ([step.get("run", "") for step in JOB["steps"]], LAB["script"]):
        text = "\n".join(steps)
        assert "--constraint base/gate-constraints.txt" in text
        assert "safety-harness rules base/gate.toml" in text


def test_caches_survive_a_repeated_run() -> None:
    """Check that a repeated run finds what the first one kept, and keeps its own."""
    restore, save = (step["with"] for step in JOB["steps"] if "actions/cache" in step.get("uses", ""))
    assert restore["key"] == save["key"]
    assert "github.run_attempt" in save["key"]
    assert save["key"].startswith(restore["restore-keys"])
    assert LAB["cache"][0]["when"] == LAB["artifacts"]["when"] == "always"
    saved = next(step for step in JOB["steps"] if "cache/save" in step.get("uses", ""))
    assert saved["if"] == "always()"


# --- What other tools say --------------------------------------------------------------------------------------------


def test_zizmor_finds_nothing(tmp_path: Path) -> None:
    """Audit the workflow, pedantically and without a network."""
    command = [tool("zizmor"), "--offline", "--pedantic", "--no-progress", "."]
    done = subprocess.run(command, cwd=laid_down(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("schema", "file"),
    [("vendor.github-workflows", ".github/workflows/gate.yml"), ("vendor.gitlab-ci", ".gitlab-ci.yml")],
)
def test_their_schemas_hold(tmp_path: Path, schema: str, file: str) -> None:
    """Hold both files against the schemas of their servers."""
    command = [tool("check-jsonschema"), "--builtin-schema", schema]
    command += ["--data-transform", "gitlab-ci"] if "gitlab" in schema else []
    done = subprocess.run([*command, file], cwd=laid_down(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- What they do ----------------------------------------------------------------------------------------------------


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    """Return a place for a job's steps: its folder, its variables, and commands that need no installation."""
    place, commands = tmp_path / "job", tmp_path / "bin"
    place.mkdir()
    commands.mkdir()
    for name, text in (("python", PYTHON), ("safety-harness", COMMAND)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    env = {
        **os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "PACKAGE": "p",
        "LOG": str(tmp_path / "log"), "SAFETY_HARNESS_CACHE": str(place / "cache"), "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }  # fmt: skip
    return {"cwd": place, "env": env}


def write(folder: Path, rules: str = "") -> None:
    """Write a registry, its constraints and its model to *folder*."""
    shutil.copytree(STUDENT, folder / "models" / "ours")
    (folder / "gate.toml").write_text(REGISTRY.format(rules=rules))
    (folder / "gate-constraints.txt").write_text("pip\n")


def run(script: str, job: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run a step as its server does: a failing command ends it."""
    return subprocess.run(["bash", "-eo", "pipefail", "-c", script], capture_output=True, text=True, check=False, **job)


def steps_of_github() -> dict[str, str]:
    """Return the scripts of the workflow, by name."""
    return {step["name"]: step["run"] for step in JOB["steps"] if "run" in step}


def test_a_loosened_pull_request_is_gated_by_its_base(job: dict[str, Any]) -> None:
    """Loosen a threshold and state a failure in a change: the job says so, and takes neither."""
    write(job["cwd"] / "base")
    write(job["cwd"] / "change", "gate = { dsr = 0.01 }")
    scripts = steps_of_github()
    assert run(scripts["Install"], job).returncode == 0
    assert "--constraint base/gate-constraints.txt p" in Path(job["env"]["LOG"]).read_text()
    done = run(scripts["Take the rules from the base branch"], job)
    assert done.returncode == 0, done.stderr
    assert "::warning title=release gate::families.mine.gate.dsr: not set -> 0.01" in done.stdout
    text = (job["cwd"] / "gate.toml").read_text()
    assert "0.01" not in text
    assert str(job["cwd"] / "change" / "models" / "ours") in text


def test_the_change_that_brings_the_gate_is_said(job: dict[str, Any]) -> None:
    """Gate a change whose base branch has no registry."""
    write(job["cwd"] / "change")
    step = steps_of_github()["Take the rules from the base branch"]
    assert run(step, job).returncode == 2  # that branch is not there at all
    (job["cwd"] / "base").mkdir()
    done = run(step, job)
    assert done.returncode == 0, done.stderr
    assert "::warning title=release gate::base/gate.toml: not there." in done.stdout


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("made", ["", "base", "cache", "reports"])
def test_gitlab_takes_the_rules_of_another_branch(
    job: dict[str, Any], tmp_path: Path, by_hand: bool, made: str
) -> None:
    """Run the script up to the gate, in a clone whose change loosens a threshold, and brings what the job *made*."""
    origin = tmp_path / "origin"
    origin.mkdir()
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "uploadpack.allowAnySHA1InWant=true"]

    def call(*arguments: str, cwd: Path = origin) -> str:
        return subprocess.run([*git, *arguments], cwd=cwd, capture_output=True, text=True, check=True).stdout.strip()

    call("init", "-q", "-b", "main")
    write(origin)
    call("add", "-A")
    call("commit", "-qm", "base")
    base = call("rev-parse", "HEAD")
    call("checkout", "-qb", "change")
    (origin / "gate.toml").write_text(REGISTRY.format(rules="gate = { dsr = 0.01 }"))
    if made:
        (origin / made).mkdir()
        (origin / made / "results.json").write_text("{}")
        call("add", "-A")
    call("commit", "-qam", "loosened")
    call("clone", "-q", str(origin), str(job["cwd"]), cwd=tmp_path)
    env = {**job["env"], "CI_COMMIT_SHA": call("rev-parse", "HEAD"), "CI_DEFAULT_BRANCH": "main"}
    if not by_hand:
        env["CI_MERGE_REQUEST_DIFF_BASE_SHA"] = base
    script = "\n".join(
        [*LAB["before_script"], *(line for line in LAB["script"] if not line.startswith("safety-harness gate"))]
    )
    done = run(script, {**job, "env": env})
    if made:
        assert (done.returncode, done.stdout) == (1, f"{made}\nRename it, or leave it out.\n")
        return
    assert done.returncode == 0, done.stderr
    assert "families.mine.gate.dsr: not set -> 0.01" in done.stdout
    assert "0.01" not in (job["cwd"] / "cache" / "gate.toml").read_text()


@pytest.mark.slow
def test_the_steps_of_the_workflow_gate_a_model(job: dict[str, Any]) -> None:
    """Run every script in order: a tiny model passes, with reports, a summary and a patch."""
    for name in ("base", "change"):
        write(job["cwd"] / name)
    for name, script in steps_of_github().items():
        done = run(script, job)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
    assert list((job["cwd"] / "reports").rglob("report.html"))
    assert (job["cwd"] / "reports" / "patch" / "patch.safetensors").exists()
    assert "PASS" in Path(job["env"]["GITHUB_STEP_SUMMARY"]).read_text()
