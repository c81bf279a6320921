"""The tokens are those of `model.generate`, and depend on nothing but the request."""

from __future__ import annotations

import random

import pytest
import torch

from langnorm.engines.base import Engine
from langnorm.errors import PromptError
from tests.support.calls import PROMPTS, answer, answers, ask, counted_passes, plain_tokens, tokens
from tests.support.models import FAMILIES, NUM_LAYERS

ALL = tuple(range(NUM_LAYERS))
SAMPLED = {"temperature": 0.9, "seed": 11, "max_tokens": 60}

# Settings that differ in everything, one row each.
SETTINGS = (
    {"temperature": 0.0},
    {"temperature": 1.3, "seed": 1},
    {"temperature": 0.8, "top_k": 5, "seed": 2},
    {"temperature": 1.0, "top_p": 0.4, "repetition_penalty": 1.2, "seed": 3},
    {"temperature": 2.0, "min_p": 0.3, "seed": 4},
    {"temperature": 0.0, "repetition_penalty": 1.5},
    {"temperature": 0.8, "top_k": 5, "seed": 5},
)


def mixed_requests() -> list:
    """Returns requests that differ in prompt, settings, layers and length."""
    return [
        ask(PROMPTS[i % len(PROMPTS)], layers=ALL[: i % 3], max_tokens=10 + 3 * i, **settings)
        for i, settings in enumerate(SETTINGS)
    ]


def test_engine_has_methods_of_protocol(engine_of) -> None:
    """The engine is an `Engine`."""
    engine = engine_of("qwen3")

    assert isinstance(engine, Engine)
    assert (engine.num_layers, engine.context_length) == (NUM_LAYERS, 512)


@pytest.mark.parametrize("layers", [(), ALL], ids=["norms off", "norms on"])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_equal_generate(family, layers, model_of, engine_of) -> None:
    """A greedy answer has exactly the tokens of `model.generate`, whether or not norms are recorded."""
    expected = plain_tokens(model_of(family), PROMPTS[4], max_new_tokens=20)

    completion = answer(engine_of(family), ask(PROMPTS[4], layers=layers, max_tokens=20))

    assert completion.token_ids == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_do_not_depend_on_batch(family, engine_of) -> None:
    """Padding, neighbours and their ends change no token of a greedy row."""
    requests = [ask(prompt, max_tokens=8 + 4 * i) for i, prompt in enumerate(PROMPTS)]

    together = tokens(engine_of(family), requests)

    assert together == [answer(engine_of(family), request).token_ids for request in requests]


@pytest.mark.parametrize("family", ["qwen3", "mistral", "gemma3", "gpt2"])
def test_sampled_tokens_do_not_depend_on_batch(family, engine_of) -> None:
    """A seeded request gets the same tokens alone, in any company at any place, and streamed."""
    engine, request = engine_of(family), ask(PROMPTS[0], **SAMPLED)
    greedy = ask(PROMPTS[2], max_tokens=70)
    others = [ask(prompt, temperature=1.5, top_k=9, max_tokens=30) for prompt in PROMPTS[1:4]]

    alone = answer(engine, request)
    *_, last = engine.stream(request)

    assert last.completion == alone
    assert len(alone.token_ids) > 10
    assert tokens(engine, [request, *others])[0] == alone.token_ids
    assert tokens(engine, [greedy, *others, request])[-1] == alone.token_ids
    assert tokens(engine, [others[0], request, others[1]])[1] == alone.token_ids
    assert tokens(engine, [request, request]) == [alone.token_ids] * 2


async def test_sync_async_stream_and_batch_agree(engine_of) -> None:
    """All ways to ask give equal completions, text and norms included."""
    engine, request = engine_of("qwen2"), ask(PROMPTS[1], layers=(1,), **SAMPLED)
    alone = answer(engine, request)

    (response,) = await engine.agenerate([request])
    streamed = [delta async for delta in engine.astream(request)]

    assert response.completions == (alone,)
    assert streamed[-1].completion == alone
    pieces = [piece for delta in streamed for piece in delta.pieces]
    assert "".join(text for _, text in pieces) == "".join(alone.pieces)
    assert all(alone.pieces[token].startswith(text) for token, text in pieces)


def test_samples_of_request_differ_and_are_stable(engine_of) -> None:
    """The n samples differ, and sample i is the same whatever n is."""
    engine = engine_of("llama")

    def samples(n: int, **fields) -> list[list[int]]:
        response = engine.generate([ask(PROMPTS[0], n=n, **SAMPLED, **fields)])[0]
        return [completion.token_ids for completion in response.completions]

    five = samples(5)

    assert len({tuple(sample) for sample in five}) == 5
    assert samples(3) == five[:3]
    assert samples(1) == five[:1]
    assert samples(5, max_batch_size=2) == five


def test_seeds_decide_about_sampled_tokens(engine_of) -> None:
    """Different seeds give different tokens, and no seed gives new ones each time."""
    seeds = (0, 1, 2, -1, 2**70, None, None)
    requests = [ask(PROMPTS[0], temperature=1.0, seed=seed, max_tokens=30) for seed in seeds]

    found = tokens(engine_of("qwen3"), requests)

    assert len({tuple(ids) for ids in found}) == len(seeds)
    again = tokens(engine_of("qwen3"), requests)
    assert again[:5] == found[:5]
    assert again[5:] != found[5:]


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-4}], ids=str)
def test_one_possible_token_equals_greedy(settings, engine_of) -> None:
    """Sampling from one token only is greedy decoding."""
    engine = engine_of("olmo2")
    greedy = ask(PROMPTS[0], max_tokens=30)
    sampled = ask(PROMPTS[0], max_tokens=30, **{"temperature": 1.0, "seed": 9, **settings})

    assert answer(engine, sampled).token_ids == answer(engine, greedy).token_ids


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_settings_hold_per_row(family, engine_of) -> None:
    """Rows of one batch that differ in every setting get what each gets alone."""
    requests = mixed_requests()

    together = answers(engine_of(family), requests)

    alone = [answer(engine_of(family), request) for request in requests]
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]
    assert len({tuple(c.token_ids) for c in alone}) == len(alone)
    assert [c.finish_reason for c in together] == [c.finish_reason for c in alone]
    assert ["".join(c.pieces) for c in together] == ["".join(c.pieces) for c in alone]


def test_permuting_a_batch_changes_nothing(engine_of) -> None:
    """The order of requests decides about nothing but the order of responses."""
    engine, requests = engine_of("qwen3"), mixed_requests()
    found = tokens(engine, requests)

    for seed in range(3):
        order = random.Random(seed).sample(range(len(requests)), len(requests))
        assert tokens(engine, [requests[i] for i in order]) == [found[i] for i in order]


@pytest.mark.parametrize("penalty", [1.3, 0.8])
def test_repetition_penalty_equals_that_of_generate(penalty, model_of, engine_of) -> None:
    """A row is penalised for its prompt and its answer, not for padding, as `model.generate` alone does it."""
    requests = [ask(prompt, repetition_penalty=penalty, max_tokens=25) for prompt in PROMPTS]

    found = tokens(engine_of("qwen2"), requests)

    assert found == [
        plain_tokens(model_of("qwen2"), prompt, repetition_penalty=penalty, max_new_tokens=25) for prompt in PROMPTS
    ]


def test_rows_have_their_own_limits(model_of, engine_of) -> None:
    """`max_tokens` holds per row, and the batch runs no longer than its longest row."""
    limits = (4, 1, 9, 2, 6)
    requests = [ask(prompt, max_tokens=limit) for prompt, limit in zip(PROMPTS, limits, strict=True)]

    with counted_passes(model_of("qwen3")) as passes:
        completions = answers(engine_of("qwen3"), requests)

    assert [len(c.token_ids) for c in completions] == list(limits)
    assert {c.finish_reason for c in completions} == {"length"}
    assert passes.batch_sizes == [5] * 9


def test_answer_ends_with_context(model_of, engine_of) -> None:
    """Prompt and answer together fill the context at most, per row of a batch."""
    fields = {"max_position_embeddings": 40}
    prompts = (tuple(range(100, 131)), tuple(range(100, 138)), (100, 101))

    found = tokens(engine_of("llama", **fields), [ask(prompt) for prompt in prompts])

    ends = model_of("llama", **fields).generation_config.eos_token_id
    for prompt, ids in zip(prompts, found, strict=True):
        assert len(prompt) + len(ids) == 40 or ids[-1] == ends
    assert [len(ids) for ids in found[:2]] == [9, 2]


@pytest.mark.parametrize("unknown", [-1, 1023, 10**6])
def test_token_outside_vocabulary_is_refused_before_any_compute(unknown, model_of, engine_of) -> None:
    """A token id that the model lacks is an error that names it, and nothing of the call is run."""
    fields = {"vocab_size": 1023}
    with counted_passes(model_of("llama", **fields)) as passes:
        with pytest.raises(PromptError, match=rf"token id `{unknown}`.*0 to 1022.*tokenizer"):
            engine_of("llama", **fields).generate([ask(PROMPTS[0]), ask((5, unknown, 7))])
        with pytest.raises(PromptError, match=f"`{unknown}`"):
            next(engine_of("llama", **fields).stream(ask((5, unknown, 7))))

    assert len(passes) == 0


def test_large_batches_are_split_at_their_limit(model_of, engine_of) -> None:
    """More requests than `max_batch_size` run in several batches, and each gets its own answer."""
    requests = [ask(PROMPTS[i % 5], max_tokens=4 + i, max_batch_size=3) for i in range(8)]

    with counted_passes(model_of("llama")) as passes:
        found = tokens(engine_of("llama"), requests)

    assert max(passes.batch_sizes) == 3
    assert found == [answer(engine_of("llama"), request).token_ids for request in requests]


def test_stop_text_ends_its_row_only(engine_of) -> None:
    """A stop text is cut from its own row, streamed or not, and its neighbour goes on."""
    engine = engine_of("qwen3")
    whole = answer(engine, ask(PROMPTS[0], max_tokens=40))
    text = "".join(whole.pieces)
    stop = text[12:14]
    request = ask(PROMPTS[0], stop=(stop, "never said"), max_tokens=40)

    stopped, other = answers(engine, [request, ask(PROMPTS[0], max_tokens=40)])
    deltas = list(engine.stream(request))

    assert "".join(stopped.pieces) == text.partition(stop)[0]
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids == whole.token_ids[: len(stopped.token_ids)]
    assert other == whole
    assert deltas[-1].completion == stopped
    assert "".join(piece for delta in deltas for _, piece in delta.pieces) == "".join(stopped.pieces)


def test_no_requests_give_no_responses(engine_of) -> None:
    """An empty call is answered with an empty list."""
    assert engine_of("llama").generate([]) == []


def test_generation_leaves_random_state_alone(engine_of) -> None:
    """Sampling neither reads nor moves torch's global random state."""
    state = torch.random.get_rng_state()

    answer(engine_of("llama"), ask(PROMPTS[0], **SAMPLED))

    assert torch.equal(torch.random.get_rng_state(), state)
