from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.hub.errors import BadReferenceError
from lumen.hub.reference import (
    Builtin,
    HubModel,
    LocalFile,
    WebFile,
    parse,
    safe_file_name,
    with_revision,
)

DIGEST = "a" * 64


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("builtin:tiny", Builtin("tiny")),
        (" builtin:tiny-draft ", Builtin("tiny-draft")),
        ("hf://org/repo", HubModel("org", "repo")),
        ("HF://Org/Repo-GGUF:q4_k_m@v1.0", HubModel("Org", "Repo-GGUF", "Q4_K_M", "v1.0")),
        ("hf://org/repo@refs/pr/1", HubModel("org", "repo", None, "refs/pr/1")),
        ("hf://org/repo/sub/m.gguf@main", HubModel("org", "repo", None, "main", "sub/m.gguf")),
        ("/models/a.gguf", LocalFile("/models/a.gguf")),
        ("~/a.gguf", LocalFile("~/a.gguf")),
        ("./a", LocalFile("./a")),
        ("a.GGUF", LocalFile("a.GGUF")),
        ("file:///tmp/a%20b.gguf", LocalFile("/tmp/a b.gguf")),
        ("file:plain", LocalFile("plain")),
        ("https://h.example/x/m.gguf?k=1", WebFile("https://h.example/x/m.gguf?k=1", "m.gguf")),
        (f"http://h/m.gguf#sha256={DIGEST}", WebFile("http://h/m.gguf", "m.gguf", DIGEST)),
    ],
)
def test_reads_every_kind(text: str, meant: object) -> None:
    reference = parse(text)
    assert reference == meant
    assert parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "help"),
    [
        ("builtin:tinny", "builtin:tiny?"),
        ("tiny", "builtin:tiny?"),
        ("org/repo:Q8_0", "hf://org/repo:Q8_0?"),
        ("hf:/org/repo", "hf://org/repo?"),
        ("htps://h/m.gguf2/x", "https://h/m.gguf2/x?"),
        ("https://hub.example/org/repo", "hf://org/repo"),
        ("https://hub.example/org/repo/blob/main/m.gguf", "/resolve/"),
        ("hf://org", "hf://org/repo[:quant]"),
        ("hf://org/repo@", "without a revision"),
        ("hf://org/repo:", "Q4_K_M"),
        ("hf://org/repo/readme.md", ".gguf"),
        ("hf://org/repo/m.gguf:Q8_0", "one is enough"),
        ("https://user:pw@h/m.gguf", "password"),
        ("https://h/m.gguf#sha256=00", "64 hex"),
        ("file://server/m.gguf", "file:///"),
        ("https://[::1/m.gguf", "not a usable address"),
        ("", "hf://org/repo"),
        ("nonsense", "hf://org/repo"),
    ],
)
def test_says_what_was_probably_meant(text: str, help: str) -> None:
    with pytest.raises(BadReferenceError) as caught:
        parse(text)
    assert help in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "hf://../repo",
        "hf://org/..",
        "hf://org/a..b",
        "hf://org/a--b",
        "hf://org/repo@../../main",
        "hf://org/repo@a//b",
        "hf://org/repo:../x",
        "hf://org/repo/../../etc/x.gguf",
        "hf://org/repo//x.gguf",
        "hf://org/re\0po",
        "https://h/..%2f..%2f.gguf/..gguf",
    ],
)
def test_no_reference_escapes(text: str) -> None:
    with pytest.raises(BadReferenceError):
        parse(text)


@given(st.text(max_size=80))
def test_a_remote_name_stays_inside_its_folder(name: str) -> None:
    try:
        safe = safe_file_name(name)
    except BadReferenceError:
        return
    joined = posixpath.normpath(posixpath.join("/store/folder", safe))
    assert joined.startswith("/store/folder/")
    assert "\\" not in safe and "\0" not in safe


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_a_clear_refusal(text: str) -> None:
    try:
        reference = parse(text)
    except BadReferenceError as error:
        assert error.message
    else:
        assert parse(str(reference)) == reference


def test_revision_from_the_command_line() -> None:
    assert with_revision(parse("hf://o/r:Q8_0"), "v2") == HubModel("o", "r", "Q8_0", "v2")
    assert with_revision(parse("hf://o/r@v2"), "v2") == HubModel("o", "r", None, "v2")
    assert with_revision(parse("./a.gguf"), None) == LocalFile("./a.gguf")
    for text, revision in [("./a.gguf", "v2"), ("hf://o/r@v1", "v2"), ("hf://o/r", "../x")]:
        with pytest.raises(BadReferenceError):
            with_revision(parse(text), revision)
