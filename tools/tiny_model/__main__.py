"""Train and export the built-in model: `python -m tools.tiny_model --help`."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from . import tokenizer as bpe
from .batches import drills, encode
from .corpus import Corpus
from .corpus.pools import copied_words
from .export import write_gguf, write_hugging_face
from .model import DRAFT, MAIN
from .train import Recipe, finish, train_draft, train_main

SEED = 5866
DOCUMENTS, DRILLS = 50_000, 5_000
MAIN_RECIPE = Recipe(steps=1200)
FINISHING = 32_000
FINISH_RECIPE = Recipe(steps=550, matrix_rate=0.01, other_rate=0.001, warm_up=20, long_every=24, seed=SEED + 1)
DRAFT_RECIPE = Recipe(steps=350)
PACKAGE = Path(__file__).parents[2] / "lumen" / "tiny"
NAME, DRAFT_NAME = "lumen-tiny", "lumen-tiny-draft"


def main(arguments: list[str] | None = None) -> int:
    """Run the whole recipe; 0 when every file has been written."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    options.out.mkdir(parents=True, exist_ok=True)
    texts = Corpus(SEED).texts(DOCUMENTS)
    tokenizer: Tokenizer = bpe.train(texts[:20_000], copied_words())
    documents = encode(tokenizer, texts) + drills(tokenizer, DRILLS, SEED)
    _report(f"{len(documents)} documents, {sum(len(document.ids) for document in documents)} tokens")
    model = train_main(documents, MAIN, _scaled(MAIN_RECIPE, options.scale), _report)
    last = encode(tokenizer, Corpus(SEED + 1).finishing_texts(FINISHING)) + documents[::16]
    model = finish(model, last, _scaled(FINISH_RECIPE, options.scale), _report)
    write_gguf(model, tokenizer, options.out / f"{NAME}.gguf", NAME)
    if options.hugging_face:
        write_hugging_face(model, tokenizer, options.hugging_face)
    draft = train_draft(documents + last, DRAFT, _scaled(DRAFT_RECIPE, options.scale), model, _report)
    write_gguf(draft, tokenizer, options.out / f"{DRAFT_NAME}.gguf", DRAFT_NAME)
    if options.hugging_face:
        write_hugging_face(draft, tokenizer, options.hugging_face / "draft")
    _write_digests(options.out)
    _report(f"{time.process_time() / 60:.1f} CPU-minutes")
    return 0


def _write_digests(folder: Path) -> None:
    """SHA256SUMS, in the format of the sha256sum program."""
    files = [folder / f"{name}.gguf" for name in (NAME, DRAFT_NAME)]
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.tiny_model", description=__doc__)
    parser.add_argument("--out", type=Path, default=PACKAGE, help="folder for the two GGUF files")
    parser.add_argument("--hugging-face", type=Path, help="also write a Hugging Face folder for vLLM here")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the training steps, for a quick trial")
    return parser


def _scaled(recipe: Recipe, scale: float) -> Recipe:
    return replace(recipe, steps=max(2, round(recipe.steps * scale)))


def _report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
