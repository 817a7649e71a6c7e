from __future__ import annotations

from pathlib import Path

import pytest

from lumen.learning.checks import CheckerError, load


@pytest.mark.parametrize(
    ("written", "answer", "good"),
    [
        ("exact", " the  same\n", 1.0),
        ("exact", "another", 0.0),
        ("exact:42", " 42 ", 1.0),
        ("exact:42", "43", 0.0),
        (r"regex:\b4\d\b", "it is 42.", 1.0),
        (r"regex:\b4\d\b", "it is 52.", 0.0),
        ("regex:a:b", "a:b", 1.0),
    ],
)
def test_text_checkers(written: str, answer: str, good: float) -> None:
    assert load(written)("what?", answer, "the same") == good


def test_a_schema_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"type": "object", "required": ["a"]}')
    check = load(f"schema:{tmp_path / 's.json'}")
    assert check("", '{"a": 1}', "") == 1.0
    assert check("", '```json\n{"a": 1}\n```', "") == 1.0
    assert check("", '{"b": 1}', "") == check("", "no JSON", "") == 0.0


def test_a_function_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "c.py"
    path.write_text(
        "import json\n\ndef check(request, answer):\n    return request in answer\n\ndef half(r, a):\n    return 7\n"
    )
    assert load(f"python:{path}")("x", "axb", "") == 1.0
    assert load(f"python:{path}")("x", "ab", "") == 0.0
    assert load(f"python:{path}:half")("x", "ab", "") == 1.0


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("regexp:a", "is no checker"),
        ("regex:", "is no checker"),
        ("regex:(", "no regular expression"),
        ("schema:{folder}/none.json", "cannot be read"),
        ("schema:{folder}/text.txt", "is not JSON"),
        ("schema:{folder}/ref.json", "not understood"),
        ("python:{folder}/text.txt", "cannot be run: SyntaxError"),
        ("python:{folder}/empty.py", "no function 'check'"),
        ("python:{folder}/empty.py:mine", "no function 'mine'"),
    ],
)
def test_a_checker_that_cannot_be_used_says_why(written: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("no ( JSON")
    (tmp_path / "ref.json").write_text('{"$ref": "#"}')
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(CheckerError, match=why.replace("(", r"\(")):
        load(written.format(folder=tmp_path))
