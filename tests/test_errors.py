"""Check that no error shows a credential."""

from __future__ import annotations

import pytest

from safety_harness.errors import HarnessError, SourceError, masked

TOKEN = "hf_" + "aB3dE6gH9jK2mN5pQ8sT"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:SECRET@models.example/me", "https://***@models.example/me"),
        ("git clone https://SECRET@host/x failed", "git clone https://***@host/x failed"),
        ("/registry/https:/me:SECRET@host/x: does not exist", "/registry/https:/***@host/x: does not exist"),
        ("ftp://a:p%40ss:SECRET@h", "ftp://***@h"),
        ("GET https://h/x?a=1&access_token=SECRET&b=2", "GET https://h/x?a=1&***&b=2"),
        ("https://s3/x?X-Amz-Signature=SECRET", "https://s3/x?***"),
        ("{'authorization': 'Bearer SECRET99'}", "{'authorization': 'Bearer ***'}"),
        ("Authorization: Basic SECRETSECRET==", "Authorization: Basic ***"),
        (f"Invalid token {TOKEN}!", "Invalid token ***!"),
        ("ghp_0123456789abcdef0123 and AKIA0123456789ABCDEF", "*** and ***"),
        ("sk-proj-0123456789abcdef0123", "***"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "***"),
    ],
)
def test_a_credential_is_shown_as_stars(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert str(SourceError(text)) == shown
    assert "SECRET" not in f"{HarnessError(text)}"


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/org/model/resolve/main/config.json?download=true",
        "ssh://git@github.com/me/it, mail me@example.org",
        "hf_hub_download, Bearer YOUR_TOKEN, a basic understanding, sk-learn, tokenizer.json",
        "hf:org/model@0123abc/config.json",
        "/home/me/models@v2/model.safetensors",
    ],
)
def test_other_text_is_shown_as_it_is(text: str) -> None:
    assert masked(text) == text
