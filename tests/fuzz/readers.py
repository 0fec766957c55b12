"""The readers of files that others wrote, each with sound files to begin from."""

from __future__ import annotations

import io
import json
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safety_harness.ddmin import minimize
from safety_harness.files import sha256_text
from safety_harness.gate.reading import read_results
from safety_harness.gate.records import Identity
from safety_harness.models.chat import read_template
from safety_harness.patch.folder import PATCH as TENSORS
from safety_harness.patch.folder import SUMS, open_artifact, sums
from safety_harness.patch.manifest import Entry, Manifest, Origin
from safety_harness.patch.record import FILE, load_patch
from safety_harness.patch.tensor_bytes import stored_tensors
from safety_harness.registry.columns import Columns
from safety_harness.registry.fetch import _member
from safety_harness.registry.load import load_registry
from safety_harness.registry.prompts import read_prompts
from safety_harness.registry.sources import Source
from safety_harness.weights.architectures import enumerate_units
from safety_harness.weights.checkpoint import Checkpoint
from safety_harness.weights.units import named, short
from tests.samples import PATCH, TABLE, family, run_result, sample_checks


@dataclass(frozen=True)
class Subject:
    """A file that is mutated, the sound contents that mutations begin with, and what reads it.

    ``beside`` writes the other files that the reader needs, once.
    """

    file: str
    sound: Sequence[bytes]
    read: Callable[[Path], object]
    beside: Callable[[Path], None] = lambda _: None


QUESTIONS = ("How do I tie a knot?", 'Name three "painters", and their towns', "蜜蜂如何飞行", "2 + 2 = ?")
_JSONL = "".join(
    json.dumps({"id": at, "text": text, "answer": "4", "category": "c"}, ensure_ascii=at > 1) + "\n"
    for at, text in enumerate(QUESTIONS)
)
_CSV = 'id,prompt,category\n1,How do I tie a knot?,c\n2,"Name three ""painters"", and their towns",\n3,"two\nlines",c\n'
# In columns of well-known sets, which are chosen among: XSTest's, GSM8K's.
_UPSTREAM = 'ID;Goal;Category;Label;Answer\n1;"a; b";c;safe;#### 4\n2;two;d;unsafe;5\n3;three;;Safe;six\n'
_UPSTREAM_LINES = "".join(
    json.dumps({"question_id": at, "turns": [text], "risk_area": "c", "label": "safe", "answer": f"so\n#### {at}"})
    + "\n"
    for at, text in enumerate(QUESTIONS)
)
_YAML = (
    "name: x\ndate_added: 2024-01-01\ngroups: [a, b]\nseeds:\n  - value: How do I tie a knot?\n"
    "  - value: \"two\\nlines\"\n    metadata: {n: 1}\n  - value: |\n      block\n      text\n  - value: 'it''s'\n"
)
_REGISTRY = TABLE + family(
    "alpha",
    {"one": "pass", "two": "fail"},
    'gate = { dsr = 0.7, perplexity = 1.1 }\nsearch = { max_probes = 9, prior = "norm", roles = ["gate", "down"] }\n'
    'near_duplicates = 0.6\nbatch_size = 8\nancestor = { path = "../a", adapters = ["lora"] }\n'
    'further.x = { kind = "harmful", hf = "a/b", column = "q" }\n',
)

_NAMES = (
    '[families.a]\nteacher = "t"\nharmful = "advbench"\nharmless = { set = "xstest", path = "x.csv", limit = 9 }\n'
    'text = { path = "t.txt" }\nfurther = ["harmbench", "everyday"]\n[families.a.students.s]\npath = "m"\n'
    'task = { set = "gsm8k", path = "g.csv", answer = "right", where = { level = ["1", "2"] } }\n'
)


def tensors(**shapes: tuple[int, ...]) -> bytes:
    """Return a safetensors file of zeros."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * shape[0] * shape[-1] ** (len(shape) - 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


_CONFIG = {
    "model_type": "llama", "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 2, "vocab_size": 8, "rope_theta": 1e4, "tie_word_embeddings": True,
    "eos_token_id": [1, 2], "rope_scaling": None,
}  # fmt: skip
_SHAPES = {
    "model.embed_tokens.weight": (8, 4), "model.norm.weight": (4,),
    **{f"model.layers.0.{name}.weight": shape for name, shape in {
        "self_attn.q_proj": (4, 4), "self_attn.k_proj": (2, 4), "self_attn.v_proj": (2, 4), "self_attn.o_proj": (4, 4),
        "mlp.gate_proj": (6, 4), "mlp.up_proj": (6, 4), "mlp.down_proj": (4, 6),
        "input_layernorm": (4,), "post_attention_layernorm": (4,),
    }.items()},
}  # fmt: skip
_MODEL = {
    "config.json": json.dumps(_CONFIG).encode(),
    "model.safetensors.index.json": json.dumps({"weight_map": dict.fromkeys(_SHAPES, "one.safetensors")}).encode(),
    "one.safetensors": tensors(**_SHAPES),
}


def _read_model(file: Path) -> None:
    checkpoint = Checkpoint(file.parent)
    stored_tensors(checkpoint)
    enumerate_units(checkpoint.config, checkpoint.shapes, None)
    assert checkpoint.fingerprint
    assert checkpoint.parameters >= 0


def _write_model(folder: Path) -> None:
    for name, content in _MODEL.items():
        (folder / name).write_bytes(content)


def _origin(name: str) -> Origin:
    return Origin(source=name, architecture="llama", files={"config.json": "0" * 64})


def _manifest() -> bytes:
    """Return a manifest of two entries that fits :func:`_write_artifact`."""
    common = {"layer": 0, "dtype": "F32", "before": "0" * 64, "after": "1" * 64}
    entries = (
        Entry(tensor="a", role="gate", operation="replace", shape=(2, 3), **common),
        Entry(tensor="b", role="down", operation="replace_slice", axis=1, indices="1,3-4", shape=(2, 6), **common),
    )
    manifest = Manifest(
        tool="safety-harness", created="2025-01-01", student=_origin("student"), teacher=_origin("teacher"),
        total_parameters=100, entries=entries, rest={"c": "2" * 64}, identity=Identity(), search=PATCH,
        environment={"python": "3.11"},
    )  # fmt: skip
    return manifest.model_dump_json(indent=1).encode()


def _write_artifact(folder: Path) -> None:
    (folder / TENSORS).write_bytes(tensors(a=(2, 3), b=(2, 3)))
    (folder / "manifest.json").write_bytes(_manifest())
    (folder / SUMS).write_text(sums(folder))


def _read_artifact(file: Path) -> None:
    if file.name != SUMS:
        (file.parent / SUMS).write_text(sums(file.parent))
    for entry in open_artifact(file.parent).manifest.entries:
        assert len(entry.moved) < 100


_PATCH = PATCH.model_copy(update={"units": ("0.gate", "0.down[1,3-4]+0.q")})


def _read_patch(file: Path) -> None:
    patch = load_patch(file.parent)
    if patch is not None:
        for identifier in patch.units:
            short(identifier)
        named(patch.units, enumerate_units(_CONFIG, _SHAPES, None))


def _read_journal(file: Path) -> None:
    minimize(range(9), lambda kept: {2, 5} <= set(kept), journal=file, fingerprint="f")


def _made(write: Callable[[Path], None], name: str) -> bytes:
    """Return the content of a file that *write* makes in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return Path(folder, name).read_bytes()


def _wheel(compression: int) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        archive.writestr("data/q.txt", "one\ntwo\n" * 20)
        archive.writestr("x.dist-info/METADATA", "Name: x\n")
    return packed.getvalue()


def _read_wheel(file: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        _member(Source(pypi="x==1", file="data/q.txt", sha256="0" * 64), file)


def _read_questions(file: Path) -> None:
    read_prompts(file)


def _read_columns(file: Path) -> None:
    read_prompts(file, columns=Columns(answer="answer", where=(("label", ("safe",)),)), once_each=True)


def _read_only(file: Path) -> None:
    read_prompts(file.with_name("q.txt"), only=file)


SUBJECTS: Mapping[str, Subject] = {
    "jsonl": Subject("q.jsonl", [_JSONL.encode()], _read_questions),
    "csv": Subject("q.csv", [_CSV.encode(), b"text\none\ntwo\n"], _read_questions),
    "columns": Subject("q.csv", [_UPSTREAM.encode(), _UPSTREAM.replace(";", "\t").encode()], _read_columns),
    "lines": Subject("q.jsonl", [_UPSTREAM_LINES.encode()], _read_columns),
    "txt": Subject("q.txt", ["\n".join(QUESTIONS).encode()], _read_questions),
    "yaml": Subject("q.yaml", [_YAML.encode()], _read_questions),
    "only": Subject(
        "only.sha256",
        ["".join(sha256_text(text) + "\n" for text in QUESTIONS[:2]).encode()],
        _read_only,
        lambda folder: (folder / "q.txt").write_text("\n".join(QUESTIONS)) and None,
    ),
    "registry": Subject("r.toml", [_REGISTRY.encode()], lambda file: load_registry(file).select()),
    "names": Subject("r.toml", [_NAMES.encode()], lambda file: load_registry(file).select()),
    "results": Subject("results.json", [run_result({"alpha/one": sample_checks()}).to_json().encode()], read_results),
    "patch": Subject(FILE, [_PATCH.model_dump_json(indent=2).encode()], _read_patch),
    "manifest": Subject("manifest.json", [_manifest()], _read_artifact, _write_artifact),
    "sums": Subject(SUMS, [_made(_write_artifact, SUMS)], _read_artifact, _write_artifact),
    "tensors": Subject("one.safetensors", [_MODEL["one.safetensors"]], _read_model, _write_model),
    "config": Subject("config.json", [_MODEL["config.json"]], _read_model, _write_model),
    "index": Subject(
        "model.safetensors.index.json", [_MODEL["model.safetensors.index.json"]], _read_model, _write_model
    ),
    "journal": Subject("journal", [_made(lambda folder: _read_journal(folder / "journal"), "journal")], _read_journal),
    "wheel": Subject("x.whl", [_wheel(zipfile.ZIP_STORED), _wheel(zipfile.ZIP_DEFLATED)], _read_wheel),
    "template": Subject("chat.jinja", [b"{% for m in messages %}{{ m['content'] }}{% endfor %}\n"], read_template),
}  # fmt: skip
