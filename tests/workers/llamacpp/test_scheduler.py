"""The scheduler's promises, whatever the sequences."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from lumen.workers.llamacpp.scheduler import EXACT_CHUNK, Chunk, Limits, decodes, in_lanes, mixed_budget, schedule

NEVER = 1 << 62


@dataclass
class Fake:
    tokens: list[int]
    computed: int = 0
    slot: int = 0
    single_from: int = NEVER
    adapter: int = 0
    exact: bool = False


def decoding(n: int = 5) -> Fake:
    return Fake(list(range(n)), n - 1)


@st.composite
def fakes(draw: st.DrawFn) -> list[Fake]:
    out = []
    for slot in range(draw(st.integers(0, 20))):
        total = draw(st.integers(1, 300))
        computed = draw(st.integers(0, total - 1))
        out.append(Fake(list(range(total)), computed, slot, draw(st.sampled_from([NEVER, total // 2]))))
    return out


@st.composite
def limits(draw: st.DrawFn) -> Limits:
    batch = draw(st.integers(1, 600))
    return Limits(batch, draw(st.integers(1, batch)))


def total(chunks: list[Chunk]) -> int:
    return sum(chunk.count for chunk in chunks)


@given(fakes(), limits())
def test_a_batch_is_never_overfull_and_every_chunk_is_the_next_of_its_sequence(all_: list[Fake], limit: Limits) -> None:
    chunks = schedule(all_, limit)
    assert total(chunks) <= limit.batch
    assert len({id(chunk.sequence) for chunk in chunks}) == len(chunks)
    for chunk in chunks:
        assert chunk.start == chunk.sequence.computed
        assert chunk.count >= 1
        assert chunk.sample == (chunk.start + chunk.count == len(chunk.sequence.tokens))


@given(fakes(), limits())
def test_every_decoding_sequence_advances_each_step(all_: list[Fake], limit: Limits) -> None:
    ready = [one for one in all_ if len(one.tokens) - one.computed == 1]
    chunks = schedule(all_, limit)
    if len(ready) <= limit.batch and all(one.single_from == NEVER for one in all_):
        assert {id(one) for one in ready} <= {id(chunk.sequence) for chunk in chunks if chunk.sample}


@given(fakes(), limits())
def test_prompts_make_progress_and_the_batch_is_used(all_: list[Fake], limit: Limits) -> None:
    chunks = schedule(all_, limit)
    single = [chunk for chunk in chunks if chunk.count == 1]
    if all_:
        assert chunks
    prompts = [one for one in all_ if len(one.tokens) - one.computed > 1 and one.single_from == NEVER]
    if prompts and not single and len(prompts) == len(all_):
        wanted = sum(len(one.tokens) - one.computed for one in prompts)
        assert total(chunks) == min(limit.batch, wanted)


@given(st.lists(st.integers(2, 200), min_size=1, max_size=12), limits())
def test_nobody_starves(lengths: list[int], limit: Limits) -> None:
    waiting = [Fake(list(range(n)), 0, i) for i, n in enumerate(lengths)]
    for _ in range(sum(lengths) * 4 + 4):
        if not waiting:
            break
        for chunk in schedule(waiting, limit):
            chunk.sequence.computed += chunk.count
        waiting = [one for one in waiting if one.computed < len(one.tokens)]
    assert not waiting


def test_the_oldest_prompt_is_sure_of_a_quarter_and_the_shortest_goes_first() -> None:
    long, short = Fake(list(range(1000))), Fake(list(range(50)))
    chunks = {id(chunk.sequence): chunk.count for chunk in schedule([long, short], Limits(100, 100))}
    assert chunks == {id(long): 50, id(short): 50}
    many = [Fake(list(range(80))) for _ in range(3)]
    counts = [chunk.count for chunk in schedule([long, *many], Limits(100, 100))]
    assert counts == [25, 75]


def test_prompts_take_their_share_only_while_others_stream() -> None:
    prompt = Fake(list(range(1000)))
    assert [c.count for c in schedule([prompt], Limits(512, 16))] == [512]
    assert [c.count for c in schedule([decoding(), prompt], Limits(512, 16))] == [1, 16]


def test_an_exact_replay_feeds_the_answer_one_token_a_step() -> None:
    one = Fake(list(range(20)), 0, 0, single_from=12)
    shapes = []
    while one.computed < len(one.tokens):
        (chunk,) = schedule([one], Limits(512, 512))
        shapes.append((chunk.count, chunk.sample))
        one.computed += chunk.count
    assert shapes == [(12, False)] + [(1, False)] * 7 + [(1, True)]


def alone(one: Fake, others: list[Fake], limit: Limits) -> list[tuple[int, int, bool]]:
    """What an exact sequence is given in each of its decodes, start to end."""
    shapes = []
    while one.computed < len(one.tokens):
        given = [chunks for chunks in decodes([*others, one], limit) if any(c.sequence is one for c in chunks)]
        ((chunk,),) = given
        shapes.append((chunk.start, chunk.count, chunk.sample))
        one.computed += chunk.count
    return shapes


@given(st.integers(1, 700), st.integers(0, 40), fakes(), limits(), st.integers(64, 600))
def test_what_an_exact_sequence_computes_at_once_hangs_on_itself_alone(
    prompt: int, answered: int, others: list[Fake], limit: Limits, batch: int
) -> None:
    def fresh() -> Fake:
        return Fake(list(range(prompt + answered)), single_from=prompt, exact=True)

    shapes = alone(fresh(), others, Limits(batch, min(batch, limit.mixed)))
    assert shapes == alone(fresh(), [], Limits(batch, batch))
    assert [shape[:2] for shape in shapes if shape[0] >= prompt] == [(prompt + i, 1) for i in range(answered)]
    assert all(count <= min(EXACT_CHUNK, batch) for _, count, _ in shapes)


@given(fakes(), limits())
def test_the_others_share_one_decode_as_if_there_were_no_exact_ones(all_: list[Fake], limit: Limits) -> None:
    exact = Fake([1, 2], exact=True)
    first, *rest = list(decodes([exact, *all_], limit))
    if all_:
        assert first == schedule(all_, limit)
        assert len(rest) == 1
    else:
        assert [chunk.sequence for chunk in first] == [exact]


def runs(batch: list[Chunk]) -> int:
    """Pieces that llama.cpp computes a batch of single tokens in: one for each run of neighbouring lanes."""
    lanes = [chunk.sequence.slot for chunk in batch]
    return sum(lane != before + 1 for lane, before in zip(lanes, [-2, *lanes], strict=False))


@given(fakes(), limits())
def test_in_lanes_everybody_gets_what_was_decided_and_gaps_are_bridged(all_: list[Fake], limit: Limits) -> None:
    chunks = schedule(all_, limit)
    before = {id(chunk.sequence): chunk.count for chunk in chunks}
    batches = in_lanes(chunks, all_)
    at = {id(one): one.computed for one in all_}
    for batch in batches:
        for chunk in batch:
            assert chunk.start == at[id(chunk.sequence)]
            assert chunk.count >= 1
            at[id(chunk.sequence)] += chunk.count
            assert chunk.sample == (at[id(chunk.sequence)] == len(chunk.sequence.tokens))
    for one in all_:
        got = at[id(one)] - one.computed
        assert before.get(id(one), 0) <= got <= before.get(id(one), 0) + 1
        if one.computed < one.single_from:
            assert at[id(one)] <= max(one.single_from, one.computed + 1)
    assert all(len(batch) == 1 for batch in batches[1:])
    single = [chunk for chunk in chunks if chunk.count == 1]
    if single and all(one.single_from == NEVER for one in all_) and len(all_) <= limit.batch:
        assert runs(batches[0]) == 1


def test_the_mixed_budget_follows_the_measured_pace() -> None:
    assert mixed_budget(512, 0.0, 0.05) == 512
    assert mixed_budget(512, 0.0005, 0.05) == 100
    assert mixed_budget(512, 1.0, 0.05) == 64
    assert mixed_budget(512, 1e-9, 0.05) == 512
    assert mixed_budget(8, 1.0, 0.05) == 8
