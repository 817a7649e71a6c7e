"""Train the main model, then the draft model on the main model's own predictions."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batches import Batch, Document, batches
from .initial import initialise
from .model import Llama, Shape

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how fast to learn. `long_every`: each how-manieth batch holds rows of `long_length`."""

    steps: int
    batch_tokens: int = 4096
    length: int = 512
    long_length: int = 2048
    long_every: int = 6
    matrix_rate: float = 0.02
    other_rate: float = 0.003
    warm_up: int = 80
    seed: int = 5866


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised by a Newton-Schulz iteration; for weight matrices only.

    Source: Keller Jordan and others, "Muon: An optimizer for hidden layers in neural networks" (2024).
    """

    def __init__(self, weights: Iterable[nn.Parameter], rate: float, momentum: float = 0.95) -> None:
        super().__init__(list(weights), {"lr": rate, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Apply one update to every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                average = state.setdefault("average", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                update = _orthogonal(weight.grad.lerp(average, group["momentum"]))
                scale = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
                weight.mul_(1 - group["lr"] * 0.05)
                weight.add_(update, alpha=-group["lr"] * scale)


def _orthogonal(gradient: Tensor, iterations: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrix, roughly: singular values end between about 0.7 and 1.2."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = gradient.bfloat16()
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    turned: Tensor = x.T if tall else x
    return turned.to(gradient.dtype)


def train_main(documents: Sequence[Document], shape: Shape, recipe: Recipe, report: Report) -> Llama:
    """Learn from the text alone."""
    return _train(_new(shape, recipe), documents, recipe, report, teacher=None)


def finish(model: Llama, documents: Sequence[Document], recipe: Recipe, report: Report) -> Llama:
    """Learn on, gently, from other documents."""
    return _train(model.train(), documents, recipe, report, teacher=None)


def train_draft(documents: Sequence[Document], shape: Shape, recipe: Recipe, teacher: Llama, report: Report) -> Llama:
    """Learn the teacher's distribution too, so that the draft's guesses agree with the main model."""
    return _train(_new(shape, recipe), documents, recipe, report, teacher)


def _new(shape: Shape, recipe: Recipe) -> Llama:
    torch.manual_seed(recipe.seed)
    model = Llama(shape)
    initialise(model)
    return model


def _train(model: Llama, documents: Sequence[Document], recipe: Recipe, report: Report, teacher: Llama | None) -> Llama:
    rng, shape = random.Random(recipe.seed), model.shape
    optimizers = _optimizers(model, recipe)
    fitting = [document for document in documents if len(document.ids) <= recipe.length]
    lengthy = [document for document in documents if len(document.ids) > recipe.length]
    lengthy += fitting[: 2 * len(lengthy)]
    short = batches(fitting, recipe.length, recipe.batch_tokens, shape.context, rng)
    long = batches(lengthy, recipe.long_length, recipe.batch_tokens, shape.context, rng)
    began, mean = time.monotonic(), 0.0
    for step in range(recipe.steps):
        batch = next(long if step % recipe.long_every == recipe.long_every - 1 else short)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * _schedule(step, recipe)
        loss = _loss(model, teacher, batch)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        mean = loss.item() if step == 0 else 0.95 * mean + 0.05 * loss.item()
        if step % 50 == 0 or step == recipe.steps - 1:
            report(f"step {step + 1}/{recipe.steps}  loss {mean:.3f}  {time.monotonic() - began:.0f} s")
    return model.eval()


def _optimizers(model: Llama, recipe: Recipe) -> list[torch.optim.Optimizer]:
    matrices = [weight for weight in model.layers.parameters() if weight.ndim == 2]
    chosen = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in chosen]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, recipe.matrix_rate),
        torch.optim.AdamW(others, lr=recipe.other_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def _schedule(step: int, recipe: Recipe) -> float:
    """Linear warm-up, a plateau for two fifths of the way, then a cosine down to 2 %."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    fall_from = 0.4 * recipe.steps
    if step < fall_from:
        return 1.0
    progress = (step - fall_from) / (recipe.steps - fall_from)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


def _loss(model: Llama, teacher: Llama | None, batch: Batch) -> Tensor:
    """Weighted mean cross-entropy in nats; with a teacher, half of it against the teacher's distribution."""
    chosen, weights = _chosen(batch.weights.flatten())
    with torch.autocast("cpu", torch.bfloat16):
        states = model.hidden(batch.inputs, batch.positions).flatten(0, 1)[chosen]
        logits = model.head(states).float()
    losses = F.cross_entropy(logits, batch.targets.flatten()[chosen], reduction="none")
    if teacher is not None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            states = teacher.hidden(batch.inputs, batch.positions).flatten(0, 1)[chosen]
            wanted = teacher.head(states).float().softmax(-1)
        losses = 0.5 * losses + 0.5 * F.cross_entropy(logits, wanted, reduction="none")
    return (losses * weights).sum() / weights.sum()


def _chosen(weights: Tensor, multiple: int = 512) -> tuple[Tensor, Tensor]:
    """Positions that carry loss and their weights, filled up with weightless ones to a multiple.

    Few distinct sizes keep oneDNN's cache of kernels, which holds one for each size it has seen, small.
    """
    chosen = weights.nonzero().squeeze(1)
    extra = -len(chosen) % multiple
    return F.pad(chosen, (0, extra)), F.pad(weights[chosen], (0, extra))
