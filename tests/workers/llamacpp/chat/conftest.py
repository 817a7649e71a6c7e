"""The real grammar sampler of llama.cpp over a vocabulary written here: every byte, and tokens that cross borders."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from lumen.workers.llamacpp.chat.gbnf import Grammar

llama_cpp = pytest.importorskip("llama_cpp")

SPECIALS = ("<eos>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<think>", "</think>")
JOINED = ('>\n{"', '{"', '": "', '", "', '":', '"}', "}}", "\n\n", "</", "name")


def _gpt2_bytes() -> dict[int, str]:
    """GPT-2's spelling of bytes as printable characters, in which byte-level vocabularies are stored."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shown = {byte: chr(byte) for byte in plain}
    for number, byte in enumerate(byte for byte in range(256) if byte not in shown):
        shown[byte] = chr(256 + number)
    return shown


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _write_vocabulary(path: Path) -> None:
    shown = _gpt2_bytes()
    tokens = [shown[byte] for byte in range(256)]
    tokens += ["".join(shown[byte] for byte in text.encode()) for text in JOINED]
    kinds = [1] * len(tokens) + [3] * len(SPECIALS)
    tokens += SPECIALS
    pairs: list[tuple[str, bytes]] = [
        ("general.architecture", struct.pack("<I", 8) + _string("llama")),
        ("tokenizer.ggml.model", struct.pack("<I", 8) + _string("gpt2")),
        ("tokenizer.ggml.pre", struct.pack("<I", 8) + _string("gpt-2")),
        ("tokenizer.ggml.tokens", struct.pack("<IIQ", 9, 8, len(tokens)) + b"".join(map(_string, tokens))),
        ("tokenizer.ggml.token_type", struct.pack("<IIQ", 9, 5, len(kinds)) + struct.pack(f"<{len(kinds)}i", *kinds)),
        ("tokenizer.ggml.merges", struct.pack("<IIQ", 9, 8, 1) + _string("a b")),
        ("tokenizer.ggml.eos_token_id", struct.pack("<II", 4, 256 + len(JOINED))),
        ("tokenizer.ggml.bos_token_id", struct.pack("<II", 4, 256 + len(JOINED))),
    ]
    body = b"".join(_string(key) + value for key, value in pairs)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + body)


class Engine:
    """Compiles grammars and walks texts through them as the sampler would."""

    def __init__(self, path: Path) -> None:
        _write_vocabulary(path)
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, "the vocabulary does not load"
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.eos = llama_cpp.llama_vocab_eos(self.vocab)
        self.texts: dict[bytes, int] = {bytes([byte]): byte for byte in range(256)}
        for number, text in enumerate((*JOINED, *SPECIALS)):
            self.texts[text.encode()] = 256 + number

    def compile(self, grammar: Grammar) -> object:
        """The sampler, or None where llama.cpp cannot read the grammar."""
        return llama_cpp.llama_sampler_init_grammar(self.vocab, grammar.gbnf.encode(), grammar.root.encode())

    def allows(self, sampler: object, token: int) -> bool:
        array = llama_cpp.llama_token_data_array()
        one = (llama_cpp.llama_token_data * 1)()
        one[0].id, one[0].logit, one[0].p = token, 1.0, 0.0
        array.data = ctypes.cast(one, llama_cpp.llama_token_data_p)
        array.size, array.selected, array.sorted = 1, -1, False
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
        return bool(one[0].logit > -1e30)

    def walk(self, sampler: object, tokens: list[int]) -> int:
        """Accepts tokens while the grammar takes them; how many it took."""
        for number, token in enumerate(tokens):
            if not self.allows(sampler, token):
                return number
            llama_cpp.llama_sampler_accept(sampler, token)
        return len(tokens)

    def spell(self, text: str, joined: bool) -> list[int]:
        """The text byte by byte, or in the longest tokens there are."""
        raw, tokens = text.encode(), []
        longest = max(map(len, self.texts)) if joined else 1
        while raw:
            size = next(n for n in range(min(longest, len(raw)), 0, -1) if raw[:n] in self.texts)
            tokens.append(self.texts[raw[:size]])
            raw = raw[size:]
        return tokens

    def matches(self, grammar: Grammar, text: str) -> bool:
        """True where the whole text, and an end after it, are allowed, in every spelling alike."""
        answers = set()
        for joined in (False, True):
            sampler = self.compile(grammar)
            assert sampler, f"the grammar does not compile:\n{grammar.gbnf}"
            tokens = self.spell(text, joined)
            taken = self.walk(sampler, tokens)
            answers.add(taken == len(tokens) and self.allows(sampler, self.eos))
            llama_cpp.llama_sampler_free(sampler)
        assert len(answers) == 1, f"the spellings of {text!r} differ"
        return answers.pop()

    def prefix(self, grammar: Grammar, text: str) -> bool:
        """True where the text may be the beginning of an answer."""
        sampler = self.compile(grammar)
        assert sampler, f"the grammar does not compile:\n{grammar.gbnf}"
        tokens = self.spell(text, False)
        taken = self.walk(sampler, tokens)
        llama_cpp.llama_sampler_free(sampler)
        return taken == len(tokens)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = Engine(tmp_path_factory.mktemp("vocabulary") / "bytes.gguf")
    yield made
    llama_cpp.llama_model_free(made.model)
