"""From a checked request to sequences the engine can run: render, tokenize, compile the grammar, replay what
is resumed.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from lumen.workers.llamacpp.chat.gbnf import Grammar
from lumen.workers.llamacpp.chat.output import OutputMachine, StreamParser
from lumen.workers.llamacpp.chat.schema import BadSchema, check_tools, response_grammar
from lumen.workers.llamacpp.chat.template import ChatTemplate, TemplateError
from lumen.workers.llamacpp.errors import bad, too_long
from lumen.workers.llamacpp.grammar import GrammarError, GrammarGuard
from lumen.workers.llamacpp.model import Vocab
from lumen.workers.llamacpp.protocol import ChatRequest, Common, CompletionRequest, Prompt, Sampling
from lumen.workers.llamacpp.sampling import Sampler, SamplingParams
from lumen.workers.llamacpp.sequence import NEVER, Event, Outbox, Sequence

_COLDEST = 1e-5
"""Temperatures up to this are greedy: nothing but the likeliest is ever drawn, and logits divided by much less are no
numbers any more."""


@dataclass(slots=True)
class Prepared:
    """One request, ready to submit. `done`: choices a resumed answer had already finished; they never reach
    the engine.
    """

    prompts: list[list[int]]
    sequences: list[Sequence] = field(default_factory=list)
    done: list[Event] = field(default_factory=list)

    @property
    def choices(self) -> int:
        return len(self.sequences) + len(self.done)

    def close(self) -> None:
        """Free the samplers of a request that will not be submitted."""
        for sequence in self.sequences:
            sequence.sampler.close()


@dataclass(slots=True)
class _Plan:
    """What every choice of one prompt shares."""

    common: Common
    prompt: list[int]
    params: SamplingParams
    guard: GrammarGuard | None
    parser: Callable[[int], StreamParser | None]
    special: frozenset[int]


class Preparer:
    """Thread-safe: everything it holds is read only."""

    def __init__(self, vocab: Vocab, template: ChatTemplate | None, n_ctx: int) -> None:
        self._vocab = vocab
        self._template = template
        self._n_ctx = n_ctx
        self._special = _shown_tokens(vocab, template)

    def chat(self, request: ChatRequest, outbox: Outbox) -> Prepared:
        """Raises `ApiError`."""
        template = self._template
        if template is None:
            raise bad("This model has no chat template; use /v1/completions.", "messages")
        common = request.common
        try:
            text = _rendered(template, request)
            grammar = template.grammar(
                text, request.tools, request.tool_choice, request.parallel, common.response_format
            )
        except TemplateError as error:
            raise bad(str(error), "messages") from None
        except BadSchema as error:
            raise bad(str(error), error.param) from None
        prompt = self._tokens(text)
        params = _params(common.sampling, self._n_ctx)

        def parser(choice: int) -> StreamParser | None:
            ids = _call_ids(params.seed, prompt, choice)
            return template.parser(text, request.tools, request.tool_choice, ids)

        return self._prepare(common, [prompt], params, grammar, parser, "messages", outbox)

    def count(self, request: ChatRequest) -> list[int]:
        """The prompt of a chat as tokens. Raises `ApiError`."""
        if self._template is None:
            raise bad("This model has no chat template; give 'prompt'.", "messages")
        try:
            return self._tokens(_rendered(self._template, request))
        except TemplateError as error:
            raise bad(str(error), "messages") from None
        except BadSchema as error:
            raise bad(str(error), error.param) from None

    def completion(self, request: CompletionRequest, outbox: Outbox) -> Prepared:
        """Raises `ApiError`."""
        try:
            grammar = response_grammar(request.common.response_format)
        except BadSchema as error:
            raise bad(str(error), error.param) from None
        prompts = [self._tokens(prompt) for prompt in request.prompts]
        params = _params(request.common.sampling, self._n_ctx)
        return self._prepare(request.common, prompts, params, grammar, lambda _choice: None, "prompt", outbox)

    def _tokens(self, prompt: Prompt) -> list[int]:
        if not isinstance(prompt, str):
            return prompt
        bos = self._vocab.bos_text
        return self._vocab.tokenize(prompt, add_special=not (bos and prompt.startswith(bos)))

    def _prepare(
        self,
        common: Common,
        prompts: list[list[int]],
        params: SamplingParams,
        grammar: Grammar | None,
        parser: Callable[[int], StreamParser | None],
        param: str,
        outbox: Outbox,
    ) -> Prepared:
        for prompt in prompts:
            if not prompt:
                raise bad("The prompt is empty.", param)
            if len(prompt) >= self._n_ctx:
                raise too_long(len(prompt), self._n_ctx, param)
        guard = None if grammar is None else self._guard(grammar)
        prepared = Prepared(prompts)
        try:
            for i, prompt in enumerate(prompts):
                plan = _Plan(common, prompt, params, guard, parser, self._special)
                for j in range(common.n):
                    self._choice(plan, i * common.n + j, outbox, prepared)
        except BaseException:
            prepared.close()
            raise
        finally:
            if guard is not None:
                guard.close()
        return prepared

    def _guard(self, grammar: Grammar) -> GrammarGuard:
        try:
            return GrammarGuard(self._vocab, grammar)
        except GrammarError as error:
            raise bad(f"The schema cannot be turned into a grammar: {error}.", "response_format") from None

    def _choice(self, plan: _Plan, choice: int, outbox: Outbox, prepared: Prepared) -> None:
        """One choice: a sequence to run, or, where what is resumed is already whole, its last event."""
        common, room = plan.common, self._n_ctx - len(plan.prompt)
        limit = room if common.max_tokens is None else min(room, common.max_tokens)
        parser = plan.parser(choice)
        sampler = Sampler(self._vocab, plan.params, choice, plan.guard.clone() if plan.guard is not None else None)
        sequence = Sequence(
            choice=choice,
            prompt_len=len(plan.prompt),
            tokens=plan.prompt + (common.resume or []),
            sampler=sampler,
            machine=OutputMachine(parser, common.stops, common.include_stop),
            outbox=outbox,
            max_answer=limit,
            salt=common.salt,
            reuse=common.reuse and not common.resume_exact,
            single_from=len(plan.prompt) if common.resume_exact else NEVER,
            exact=common.resume_exact,
            special=plan.special if parser is not None else frozenset(),
            ignore_eos=common.ignore_eos,
        )
        prepared.sequences.append(sequence)
        sampler.prime(plan.prompt)
        last = self._replay(sequence, common.resume) if common.resume is not None else None
        if last is not None:
            prepared.sequences.remove(sequence)
            prepared.done.append(last)
            sampler.close()

    def _replay(self, sequence: Sequence, resume: list[int]) -> Event | None:
        """Bring sampler and output machine to where the resumed answer stood; its last event where it was
        whole already.
        """
        vocab = self._vocab
        for at, token in enumerate(resume):
            if vocab.is_eog(token) and not sequence.ignore_eos:
                return _last(sequence, "stop", at)
            try:
                sequence.sampler.replay(token)
            except GrammarError:
                raise bad("'resume_token_ids' do not follow the requested format.", "resume_token_ids") from None
            sequence.machine.push(vocab.piece(token, token in sequence.special))
            if sequence.machine.stopped:
                return _last(sequence, "stop", at + 1)
        return _last(sequence, "length", len(resume)) if len(resume) >= sequence.max_answer else None


def _rendered(template: ChatTemplate, request: ChatRequest) -> str:
    if request.tools:
        check_tools(request.tools)
    return template.render(
        request.messages,
        request.tools,
        request.tool_choice,
        request.parallel,
        request.add_generation_prompt,
        request.continue_final,
    )


def _last(sequence: Sequence, reason: Literal["stop", "length"], completion: int) -> Event:
    deltas, finish = sequence.machine.finish(reason)
    return Event(sequence.choice, deltas, finish=finish, tail=bool(deltas), completion=completion)


def _params(sampling: Sampling, n_ctx: int) -> SamplingParams:
    """`n_ctx`: no penalty looks further back than that many tokens; -1 asks for all of them."""
    last_n = n_ctx if sampling.repeat_last_n < 0 else min(sampling.repeat_last_n, n_ctx)
    seed = secrets.randbits(63) if sampling.seed is None else sampling.seed & ((1 << 64) - 1)
    return SamplingParams(
        temperature=sampling.temperature if sampling.temperature > _COLDEST else 0.0,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        typical_p=sampling.typical_p,
        repeat_penalty=sampling.repeat_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repeat_last_n=last_n,
        logit_bias=sampling.logit_bias,
        seed=seed,
        logprobs=sampling.logprobs,
    )


def _call_ids(seed: int, prompt: list[int], choice: int) -> Callable[[int], str]:
    """Ids of tool calls, the same on every worker that is given the same prompt and seed."""
    base = hashlib.sha256(f"{seed}:{choice}:{prompt}".encode())

    def make(index: int) -> str:
        one = base.copy()
        one.update(b"%d" % index)
        return f"call_{one.hexdigest()[:24]}"

    return make


def _shown_tokens(vocab: Vocab, template: ChatTemplate | None) -> frozenset[int]:
    """Control tokens that the parser must see as text: the family's marks, and those around reasoning."""
    if template is None:
        return frozenset()
    texts = template.family.special_texts + (template.reasoning_marks or ())
    shown = set()
    for text in texts:
        tokens = vocab.tokenize(text, add_special=False)
        if len(tokens) == 1:
            shown.add(tokens[0])
    return frozenset(shown)
