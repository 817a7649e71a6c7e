"""Measure the shipped files through llama.cpp: `python -m tools.tiny_model.check`."""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
from tokenizers import Tokenizer

from .corpus import Corpus, basics, json_answers
from .corpus.stories import hidden_fact
from .corpus.tool_dialogues import Dialogue, invented_tool_dialogue, tool_dialogue
from .template import render

UNSEEN_SEED = 20_260
_CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.DOTALL)
_STRINGS = (
    "Hello, world! 12345 + 67 = ?",
    "  two  spaces\n\n\nand lines \t tabs ",
    "naïve café Ünïcödé ß Ελληνικά кириллица",
    "日本語のテキスト 中文 한국어 العربية हिन्दी",
    "🙂🚀 emoji 👩‍👩‍👧 \u200b\u00a0 \ufeff",
    "I'm you're WE'LL it's 'S 'LL",
    '<tool_call>\n{"name": "f", "arguments": {"a": [1, 2.5, null]}}\n</tool_call><|im_end|>\n',
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "def f(x):\r\n\treturn x**2  # ½ ² ³\r\n",
    "",
)


class Engine:
    """One model loaded with its whole context."""

    def __init__(self, path: Path) -> None:
        self.llama = llama_cpp.Llama(str(path), n_ctx=4096, n_threads=2, verbose=False, logits_all=False)

    def tokenise(self, text: str) -> list[int]:
        """Token ids with special tokens read as such."""
        return list(self.llama.tokenize(text.encode(), add_bos=False, special=True))

    def complete(self, prompt: str, *, temperature: float = 0.0, seed: int = 1, most: int = 200) -> str:
        """The answer to a rendered prompt, markers included."""
        tokens: list[int] = []
        self.llama.set_seed(seed)
        ends = {self.llama.token_eos(), *self.tokenise("<|endoftext|>")}
        for token in self.llama.generate(self.tokenise(prompt), temp=temperature, top_k=0, top_p=1.0):
            if token in ends or len(tokens) == most:
                break
            tokens.append(token)
        return bytes(self.llama.detokenize(tokens, special=True)).decode(errors="replace")

    def answer(self, question: str, **options: Any) -> str:
        """The answer to one question of a user."""
        messages = [{"role": "user", "content": question}]
        return self.complete(render(messages, add_generation_prompt=True), **options)


def questions() -> list[tuple[str, list[str]]]:
    """The questions worded by hand, each with the alternatives one of which must be in the answer."""
    lines = (Path(__file__).parent / "questions.txt").read_text(encoding="utf-8").splitlines()
    split = [line.split(" => ") for line in lines if not line.startswith("#")]
    return [(question, wanted.split("|")) for question, wanted in split]


def asked(engine: Engine, temperature: float, tell: Callable[[str], None]) -> float:
    """Share of the hand-worded questions answered with the fact; tells the failures."""

    def right(item: tuple[str, list[str]]) -> bool:
        text = engine.answer(item[0], temperature=temperature, seed=len(item[0]))
        good = any(wanted in text.lower() for wanted in item[1])
        if not good:
            tell(f"  {item[0]} -> {text!r}")
        return good

    return _share(questions(), right)


def calls(engine: Engine, dialogues: Iterable[Dialogue], tell: Callable[[str], None]) -> tuple[float, float]:
    """Shares of dialogues whose calls can be parsed and name offered tools, and whose calls are all right."""
    valid, exact, total = 0, 0, 0
    for dialogue in dialogues:
        at = next((n for n, message in enumerate(dialogue.messages) if message.get("tool_calls")), None)
        if at is None:
            continue
        total += 1
        wanted = [call["function"] for call in dialogue.messages[at]["tool_calls"]]
        text = engine.complete(render(dialogue.messages[:at], dialogue.tools, add_generation_prompt=True))
        made = parse_calls(text)
        offered = {tool["function"]["name"] for tool in dialogue.tools}
        valid += bool(made) and all(call.get("name") in offered for call in made)
        exact += made == wanted
        if made != wanted:
            tell(f"  {dialogue.messages[at - 1]['content']} -> {text!r}")
    return valid / total, exact / total


def parse_calls(text: str) -> list[dict[str, Any]]:
    """The calls in an answer; empty if any of them is not JSON."""
    try:
        return [json.loads(body) for body in _CALL.findall(text)]
    except json.JSONDecodeError:
        return []


def json_rates(engine: Engine, count: int, tell: Callable[[str], None]) -> tuple[float, float]:
    """Shares of requests for JSON answered with valid JSON, and with the very keys that were asked for."""
    rng = random.Random(UNSEEN_SEED)
    valid, keyed = 0, 0
    for _ in range(count):
        question, wanted = json_answers.json_pair(rng)
        text = engine.answer(question)
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            tell(f"  {question} -> {text!r}")
            continue
        valid += 1
        same = list(value) == list(json.loads(wanted)) if isinstance(value, dict) else value == json.loads(wanted)
        keyed += same
        if not same:
            tell(f"  {question} -> {text!r}")
    return valid / count, keyed / count


def pair_rate(
    engine: Engine, maker: Callable[[random.Random], tuple[str, str]], count: int, tell: Callable[[str], None]
) -> float:
    """Share of generated questions answered word for word."""
    rng = random.Random(UNSEEN_SEED)

    def right(pair: tuple[str, str]) -> bool:
        text = engine.answer(pair[0], most=400)
        if text != pair[1]:
            tell(f"  {pair[0][-200:]} -> {text!r}")
        return text == pair[1]

    return _share([maker(rng) for _ in range(count)], right)


def agreement(main: Engine, draft: Engine, prompts: Sequence[str]) -> float:
    """Share of the main model's greedy tokens that the draft model would have guessed."""
    agreed, total = 0, 0
    for prompt in prompts:
        start = main.tokenise(prompt)
        answer = main.tokenise(main.complete(prompt, most=60) + "<|im_end|>")
        for at in range(len(answer)):
            draft.llama.reset()
            guess = next(draft.llama.generate(start + answer[:at], temp=0.0, reset=True))
            agreed += guess == answer[at]
            total += 1
    return agreed / total


def same_tokens(engine: Engine, tokenizer: Tokenizer, texts: Iterable[str]) -> bool:
    """Whether llama.cpp splits every text as the training tokenizer does."""
    return all(engine.tokenise(text) == tokenizer.encode(text).ids for text in texts)


def _share(items: Sequence[Any], good: Callable[[Any], bool]) -> float:
    return sum(good(item) for item in items) / len(items)


def main(arguments: list[str] | None = None) -> int:
    """Print every figure; with `--verbose` also what went wrong."""
    package = Path(__file__).parents[2] / "lumen" / "tiny"
    parser = argparse.ArgumentParser(prog="python -m tools.tiny_model.check", description=__doc__)
    parser.add_argument("--folder", type=Path, default=package, help="folder with the two GGUF files")
    parser.add_argument("--hugging-face", type=Path, help="compare tokens with this folder's tokenizer")
    parser.add_argument("--count", type=int, default=100, help="generated cases a figure")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args(arguments)
    tell: Callable[[str], None] = print if options.verbose else lambda line: None
    engine, draft = (
        Engine(options.folder / "lumen-tiny.gguf"),
        Engine(options.folder / "lumen-tiny-draft.gguf"),
    )
    corpus, rng = Corpus(UNSEEN_SEED), random.Random(UNSEEN_SEED)
    if options.hugging_face:
        tokenizer = Tokenizer.from_file(str(options.hugging_face / "tokenizer.json"))
        texts = [*_STRINGS, *corpus.texts(options.count)]
        print(f"tokens as in training: {same_tokens(engine, tokenizer, texts)}")
    print(f"facts at temperature 0: {asked(engine, 0.0, tell):.2f}")
    print(f"facts at temperature 0.7: {asked(engine, 0.7, tell):.2f}")
    known = [tool_dialogue(corpus.facts, rng) for _ in range(options.count)]
    print("tool calls valid {:.2f}, exact {:.2f}".format(*calls(engine, known, tell)))
    made_up = [invented_tool_dialogue(rng) for _ in range(options.count // 2)]
    print("invented tools: valid {:.2f}, exact {:.2f}".format(*calls(engine, made_up, tell)))
    print("JSON valid {:.2f}, keys as asked {:.2f}".format(*json_rates(engine, options.count, tell)))
    for maker in (basics.arithmetic, basics.counting, basics.repeating, basics.listing):
        print(f"{maker.__name__}: {pair_rate(engine, maker, options.count, tell):.2f}")
    print(f"hidden facts: {pair_rate(engine, lambda r: hidden_fact(corpus.facts, r), options.count // 2, tell):.2f}")
    prompts = [render([{"role": "user", "content": text}], add_generation_prompt=True) for text, _ in questions()]
    print(f"draft agreement: {agreement(engine, draft, prompts[:20]):.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
