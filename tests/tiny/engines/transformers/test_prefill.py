"""Sequences that share the states of their prompts get the tokens and norms that each has alone, without a cache."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch

import langnorm.abacus
from langnorm.engines.options import Sampling
from langnorm.engines.requests import Record, Request
from langnorm.engines.token_choice.token_sampler import TokenSampler
from langnorm.engines.transformers import prefill_plan
from langnorm.engines.transformers.decoder_layers import find_decoder_layers
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.engines.transformers.loading import load
from langnorm.engines.transformers.sharing import sharing_of, weights_version
from langnorm.errors import OptionError
from langnorm.interventions.options import Recursion
from tests.reference.norms import reference_norms
from tests.support.calls import answer, num_hooks, wait_until
from tests.support.interventions import (
    NEVER,
    PEAK_STEERING,
    RECURSIONS,
    RUNNING,
    STEERING,
    SUPPRESSIONS,
    assert_as_defined,
    request_of,
    thresholds,
)
from tests.support.models import FAMILIES, tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from transformers import PreTrainedModel

LAYERS = (1, 3)
NUM_TOKENS = 6
WINDOWED = ("mistral", "gemma2", "gemma3")
EVERYTHING_KEPT = tuple(family for family in FAMILIES if family not in WINDOWED)
SAMPLINGS = {"greedy": {}, "sampled": {"temperature": 1.0, "top_p": 0.9, "seed": 5, "repetition_penalty": 1.1}}


def text(seed: int, length: int) -> tuple[int, ...]:
    """Returns token ids."""
    return tuple(random.Random(seed).choices(range(3, 900), k=length))


STEM, BRANCH = text(1, 90), text(2, 70)
PROMPTS = (
    (*STEM, *text(3, 40)),
    (*STEM, *text(4, 3)),
    (*STEM, *BRANCH, *text(5, 9)),
    (*STEM, *BRANCH, *text(6, 60)),
    text(7, 20),
    STEM,
)
"""Beginnings within beginnings, one that has nothing to do with them, and one that is a beginning itself."""


@torch.inference_mode()
def alone(model: PreTrainedModel, request: Request, sample: int = 0) -> list[int]:
    """Returns the tokens of a sequence alone, from a plain pass over the whole text for each of them."""
    ids, sampling = list(request.prompt_ids), request.sampling
    sampler = TokenSampler([sampling], [(sampling.seed or 0, sample)], [len(ids)])
    for _ in range(sampling.max_tokens or 0):
        scores = model(torch.tensor([ids]), use_cache=False).logits[:, -1].float()
        if sampler.is_needed:
            scores = sampler(torch.tensor([ids]), scores)
        ids.append(int(scores.argmax()))
    return ids[len(request.prompt_ids) :]


def assert_as_alone(engine: TransformersEngine, requests: Sequence[Request]) -> list[list[int]]:
    """Checks all completions of requests that run together; returns how many prompt tokens were known, by request."""
    known = []
    for request, response in zip(requests, engine.generate(requests), strict=True):
        for sample, completion in enumerate(response.completions):
            assert completion.token_ids == alone(engine.model, request, sample)
            ids = [*request.prompt_ids, *completion.token_ids]
            norms = reference_norms(engine.model, ids, LAYERS, len(request.prompt_ids))
            torch.testing.assert_close(torch.tensor(completion.norms).double(), norms, rtol=1e-4, atol=1e-6)
        known.append([c.prefix_hit.tokens if c.prefix_hit else 0 for c in response.completions])
    return known


def ask(prompt: Sequence[int], **sampling: Any) -> Request:
    """Returns a request for norms."""
    return Request(tuple(prompt), Sampling(**{"max_tokens": NUM_TOKENS, **sampling}), Record(layers=LAYERS))


@pytest.fixture
def new_engine_of(model_of, tokenizer) -> Callable[..., TransformersEngine]:
    """Returns an engine whose answers never end by themselves, and which has seen nothing yet."""

    def build(family: str, prefix_cache_bytes: int | None = None, **fields: Any) -> TransformersEngine:
        model = model_of(family, eos_token_id=NEVER, **fields)
        return TransformersEngine(model, tokenizer, prefix_cache_bytes=prefix_cache_bytes)

    return build


@pytest.fixture
def positions_of() -> Iterator[Callable[[TransformersEngine], list[int]]]:
    """Returns a list that gets the number of positions, padding included, of each pass from now on."""
    handles = []

    def listen(engine: TransformersEngine) -> list[int]:
        positions: list[int] = []

        def count(_module: object, inputs: tuple[torch.Tensor, ...], _output: object) -> None:
            positions.append(inputs[0].size(0) * inputs[0].size(1))

        handles.append(find_decoder_layers(engine.model)[0].register_forward_hook(count))
        return positions

    yield listen
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(
    ("family", "sampling"), [*((family, "greedy") for family in FAMILIES), ("qwen3", "sampled"), ("mistral", "sampled")]
)
def test_sequences_are_as_alone(family, sampling, new_engine_of) -> None:
    """In a batch of common beginnings with several samples each, when the same is asked again, and when it goes on."""
    engine, options = new_engine_of(family), SAMPLINGS[sampling]
    first = assert_as_alone(engine, [ask(prompt, n=2, **options) for prompt in PROMPTS])
    again = assert_as_alone(engine, [ask(prompt, **options) for prompt in PROMPTS])
    longer = assert_as_alone(engine, [ask((*prompt, *text(8, 5)), n=2, **options) for prompt in PROMPTS])
    assert first == [[0, 0]] * len(PROMPTS)
    # Beside a short prompt, the last tokens of others are run again: one pass for all costs less than two.
    num_short = len(PROMPTS[4])
    least = [len(p) - num_short if family in EVERYTHING_KEPT and p != PROMPTS[4] else 0 for p in PROMPTS]
    assert all(low <= known[0] <= low + num_short for low, known in zip(least, again, strict=True))
    assert longer == [[low + num_short if low else 0] * 2 for low in least]
    assert num_hooks(engine.model) == 0


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "mistral"])
def test_a_prompt_is_run_once_for_all_of_its_samples(family, new_engine_of, positions_of) -> None:
    """All but its last token, which every sample runs."""
    engine = new_engine_of(family, prefix_cache_bytes=0)
    positions = positions_of(engine)
    engine.generate([ask(PROMPTS[0], n=8)])
    assert positions == [len(PROMPTS[0]) - 1] + [8] * NUM_TOKENS


def test_what_prompts_begin_with_is_run_once(new_engine_of, positions_of) -> None:
    """And what some of them go on with; the rests are one padded pass."""
    engine = new_engine_of("qwen3", prefix_cache_bytes=0)
    positions = positions_of(engine)
    prompts = [(*STEM, *BRANCH, *BRANCH, i, i) for i in range(4, 7)] + [(*STEM, i, i) for i in range(2)]
    engine.generate([ask(prompt) for prompt in prompts])
    assert positions[:2] == [len(STEM), 2 * len(BRANCH)]
    assert positions[2] == len(prompts) * 2
    assert sum(positions[3:]) == len(prompts) * (NUM_TOKENS - 1)


def test_a_conversation_runs_only_what_is_new(new_engine_of, positions_of) -> None:
    """Each turn begins with the turns before, answers included; but for the last token of an answer, never run."""
    engine = new_engine_of("llama")
    positions, history = positions_of(engine), list(text(9, 100))
    for turn in range(4):
        positions.clear()
        completion = answer(engine, ask(history))
        num_new = len(history) if turn == 0 else 1 + 10
        assert positions == [num_new] + [1] * (NUM_TOKENS - 1)
        assert completion.token_ids == alone(engine.model, ask(history))
        history += [*completion.token_ids, *text(10 + turn, 10)]
    hit = answer(engine, ask(history)).prefix_hit
    assert hit is not None
    assert hit.tokens == len(history) - 11
    assert hit.bytes == engine.prefix_cache.num_bytes * hit.tokens // engine.prefix_cache.num_tokens


def test_streams_start_from_what_is_known(new_engine_of) -> None:
    """And are known themselves when they have ended."""
    engine = new_engine_of("qwen3")
    for known in (None, len(STEM) - 1):
        *_, last = engine.stream(ask(STEM))
        assert last.completion is not None
        assert last.completion.token_ids == alone(engine.model, ask(STEM))
        hit = last.completion.prefix_hit
        assert (hit and hit.tokens) == known


def test_clearing_while_a_stream_runs_forgets_it_too(new_engine_of) -> None:
    """Nothing of a call that began before is left."""
    engine = new_engine_of("qwen3")
    stream = engine.stream(ask(STEM, max_tokens=30))
    next(stream)
    engine.clear_prefix_cache()
    list(stream)
    assert answer(engine, ask(STEM)).prefix_hit is None


@pytest.mark.parametrize("chunk_size", [7, 64])
def test_prompts_may_be_run_in_chunks(chunk_size, new_engine_of, positions_of) -> None:
    """As the model's own configuration says."""
    for family in ("qwen3", "mistral"):
        engine = new_engine_of(family)
        config = engine.model.generation_config
        config.prefill_chunk_size = chunk_size
        try:
            positions = positions_of(engine)
            engine.generate([ask(PROMPTS[0], n=4)])
            assert max(positions) == chunk_size
            for length in (1, 20):
                assert_as_alone(engine, [ask((*PROMPTS[0], *text(8, length)), n=2)])
        finally:
            config.prefill_chunk_size = None


@pytest.mark.parametrize("kind", ["recursion", "steering", "suppression", "all", "running"])
def test_interventions_are_as_defined_from_shared_prompts(kind, new_engine_of, positions_of) -> None:
    """With a state for each sequence, in company, with the prompt's states shared and known; answers are not kept."""
    options = {
        "recursion": [RECURSIONS["paper"]],
        "steering": [STEERING],
        "suppression": [SUPPRESSIONS["random"]],
        "all": [RECURSIONS["paper"], STEERING, SUPPRESSIONS["random"]],
        "running": [replace(one, threshold=RUNNING) for one in (RECURSIONS["several"], PEAK_STEERING)],
    }[kind]
    engine = new_engine_of("qwen3")
    taus = None if kind == "running" else thresholds(engine, STEM)
    engine.clear_prefix_cache()
    positions = positions_of(engine)
    requests = [request_of(prompt, taus, *options, num_tokens=20) for prompt in (STEM, PROMPTS[0], PROMPTS[2])]
    neighbours = [ask(PROMPTS[0], n=3), ask(PROMPTS[3])]
    for _ in range(2):
        responses = engine.generate([*requests, *neighbours])
        for request, response in zip(requests, responses[:3], strict=True):
            assert_as_defined(engine.model, request, response.completions[0])
        for request, response in zip(neighbours, responses[3:], strict=True):
            for completion in response.completions:
                assert completion.token_ids == alone(engine.model, request)
    assert positions[0] == len(STEM) - 1
    assert responses[0].completions[0].prefix_hit is not None
    whole = (*STEM, *responses[0].completions[0].token_ids)
    hit = answer(engine, ask((*whole, 3))).prefix_hit
    assert hit is not None
    assert hit.tokens == len(STEM)


def test_nothing_is_shared_or_kept_where_the_prompt_is_acted_on(new_engine_of, positions_of) -> None:
    """Recursion in the prompt changes its states: they are no one else's, and no one else's are its own."""
    engine = new_engine_of("qwen3")
    taus = thresholds(engine, STEM)
    plain = ask(STEM)
    answer(engine, plain)
    num_known = engine.prefix_cache.num_tokens
    acting = request_of(
        STEM, taus, Recursion(threshold="iqr", growth_eps=-0.3, blowup=2.0, only_decode=False), num_tokens=10, n=2
    )
    positions = positions_of(engine)
    together = engine.generate([acting, plain])
    assert positions[0] == 3 * len(STEM)
    assert engine.prefix_cache.num_tokens == num_known
    assert together[0].completions[0].prefix_hit is None
    assert together[1].completions[0].token_ids == alone(engine.model, plain)
    untouched = new_engine_of("qwen3", prefix_cache_bytes=0).generate([acting])[0].completions[0]
    for completion in together[0].completions:
        assert completion.token_ids == untouched.token_ids
        assert completion.interventions == untouched.interventions


def test_norms_and_states_of_prompts_are_recorded_all_the_same(new_engine_of) -> None:
    """Who asks for them has the prompt run; who asks for states of the answer starts from what is known."""
    engine = new_engine_of("llama")
    whole = Request(STEM, Sampling(max_tokens=5, n=2), Record(layers=LAYERS, states=True, prompt=True))
    first = engine.generate([whole])[0].completions
    answer(engine, ask(STEM))
    second = engine.generate([whole])[0].completions
    for one, other in zip(first, second, strict=True):
        assert len(other.prompt_norms) == len(STEM)
        assert one.prompt_norms == other.prompt_norms
        assert other.prefix_hit is None
    of_answer = Request(STEM, Sampling(max_tokens=5), Record(layers=LAYERS, states=True))
    completion = answer(engine, of_answer)
    assert completion.prefix_hit is not None
    torch.testing.assert_close(completion.states, first[0].states, rtol=1e-4, atol=1e-4)


def test_log_probabilities_are_those_of_the_whole_prompt(new_engine_of) -> None:
    """For every sample, from shared and from known states."""
    engine = new_engine_of("qwen3")
    request = Request(PROMPTS[0], Sampling(max_tokens=4, n=3), top_logprobs=2)
    for _ in range(2):
        for completion in engine.generate([request])[0].completions:
            (likelihood,) = engine.score([PROMPTS[0]], [completion.token_ids])
            logprobs = [token.logprob for token in completion.logprobs]
            assert logprobs == pytest.approx(likelihood.token_logprobs, abs=1e-4)


@pytest.mark.parametrize("family", WINDOWED)
def test_sliding_windows_share_whole_prompts_only(family, new_engine_of, positions_of) -> None:
    """They forget keys and values, so nothing can be cut from them: no beginning is shared, and none is kept."""
    engine = new_engine_of(family)
    assert sharing_of(engine.model) == "prompts"
    positions = positions_of(engine)
    for _ in range(2):
        engine.generate([ask(prompt) for prompt in PROMPTS[:2]])
    assert positions[0] == 2 * len(PROMPTS[0])
    assert positions[NUM_TOKENS] == 2 * len(PROMPTS[0])
    assert engine.prefix_cache.num_bytes == 0


def test_some_models_share_nothing(model_of, tokenizer) -> None:
    """Recurrent states, position embeddings that depend on the length of the text, wrappers with adapters."""
    import transformers

    assert sharing_of(model_of("llama")) == "prefixes"
    for kind, more in (("dynamic", {}), ("longrope", {"long_factor": [2.0] * 8, "short_factor": [1.0] * 8})):
        rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 256, **more}
        assert sharing_of(tiny_model("llama", seed=91, rope_parameters=rope)) == "nothing"
    mamba = transformers.MambaConfig(vocab_size=99, hidden_size=16, num_hidden_layers=2, state_size=4)
    assert sharing_of(transformers.AutoModelForCausalLM.from_config(mamba)) == "nothing"
    hybrid = transformers.Qwen3NextConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, layer_types=["linear_attention", "full_attention"],
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, linear_num_value_heads=2, linear_num_key_heads=2,
        linear_key_head_dim=8, linear_value_head_dim=8, num_experts=0, mlp_only_layers=[0, 1],
    )  # fmt: skip
    assert sharing_of(transformers.AutoModelForCausalLM.from_config(hybrid)) == "nothing"

    class Wrapper(torch.nn.Module):
        get_base_model = staticmethod(partial(model_of, "llama"))

    assert sharing_of(Wrapper()) == "nothing"
    engine = TransformersEngine(tiny_model("llama", seed=92, vocab_size=len(tokenizer)), tokenizer)
    engine.model._hf_peft_config_loaded = True
    answer(engine, ask(STEM))
    assert engine.prefix_cache.num_bytes == 0


def test_another_cache_is_left_to_generate(new_engine_of) -> None:
    """A static cache, as the model's own configuration may ask for."""
    engine = new_engine_of("llama")
    config = engine.model.generation_config
    config.cache_implementation = "static"
    try:
        assert answer(engine, ask(STEM)).token_ids == alone(engine.model, ask(STEM))
    finally:
        config.cache_implementation = None
    assert engine.prefix_cache.num_bytes == 0


@pytest.mark.parametrize("change", ["in place", "dtype"])
def test_changed_weights_forget_what_was_computed(change, tokenizer) -> None:
    """By an optimizer, say, or by a move to another type."""
    model = tiny_model("qwen3", seed=93, vocab_size=len(tokenizer), eos_token_id=list(NEVER))
    engine = TransformersEngine(model, tokenizer)
    before = answer(engine, ask(STEM))
    if change == "in place":
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(-0.7)
    else:
        model.to(torch.bfloat16)
    after = answer(engine, ask(STEM))
    assert after.prefix_hit is None
    if change == "in place":
        assert after.token_ids == alone(model, ask(STEM)) != before.token_ids


def test_memory_is_bounded(new_engine_of) -> None:
    """The last conversations stay, within the bytes that were given."""
    engine = new_engine_of("qwen3")
    answer(engine, ask(STEM))
    bytes_per_token = engine.prefix_cache.num_bytes // engine.prefix_cache.num_tokens
    small = new_engine_of("qwen3", prefix_cache_bytes=300 * bytes_per_token)
    for seed in range(20, 26):
        answer(small, ask(text(seed, 100)))
        assert small.prefix_cache.num_bytes <= small.prefix_cache.max_bytes
    assert_as_alone(small, [ask(text(25, 100))])
    assert answer(small, ask(text(25, 100))).prefix_hit is not None
    assert answer(small, ask(text(20, 100))).prefix_hit is None


@pytest.mark.parametrize("given", [-1, 1.5, "1GB", True])
def test_memory_is_a_number_of_bytes(given, model_of, tokenizer) -> None:
    """Anything else is refused, by the loader before it loads anything."""
    with pytest.raises(OptionError, match="prefix_cache_bytes"):
        TransformersEngine(model_of("qwen3"), tokenizer, prefix_cache_bytes=given)
    with pytest.raises(OptionError, match="prefix_cache_bytes"):
        load(str(langnorm.abacus.path()), {"prefix_cache_bytes": given, "no_such_argument": 1}, {})


def test_memory_is_free_when_the_engine_is(new_engine_of) -> None:
    """Nothing else holds what was computed."""
    engine = new_engine_of("qwen3")
    answer(engine, ask(STEM))
    (part,) = engine.prefix_cache.tree(weights_version(engine.model)).find(STEM)
    kept = weakref.ref(part.layers[0][0])
    del part, engine
    gc.collect()
    wait_until(lambda: kept() is None)


def test_a_compiled_model_is_the_one_inside(tokenizer) -> None:
    """Its prompts are run as `generate` runs it, without compiling anything; profiles are those of its weights."""
    model: Any = tiny_model("qwen3", seed=94, vocab_size=len(tokenizer), eos_token_id=list(NEVER))
    engine = TransformersEngine(torch.compile(model, backend="eager"), tokenizer)
    assert engine.identity == TransformersEngine(model, tokenizer).identity
    request = ask(PROMPTS[0], n=3)
    for completion in engine.generate([request])[0].completions:
        assert completion.token_ids == alone(model, request)
    assert engine.prefix_cache.num_tokens == len(PROMPTS[0])


def test_memory_is_given_back_before_a_batch_fails(new_engine_of, monkeypatch) -> None:
    """What was kept is forgotten, and the batch is run again."""
    engine = new_engine_of("qwen3")
    answer(engine, ask(STEM))
    num_failures, forward = 0, engine.model.forward

    def fail_while_memory_is_taken(*args: Any, **kwargs: Any) -> Any:
        nonlocal num_failures
        if engine.prefix_cache.num_bytes:
            num_failures += 1
            msg = "out of memory"
            raise RuntimeError(msg)
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine.model, "forward", fail_while_memory_is_taken)
    completion = answer(engine, ask(STEM))
    monkeypatch.undo()
    assert num_failures == 1
    assert completion.token_ids == alone(engine.model, ask(STEM))


def test_threads_that_talk_at_once_get_what_they_get_alone(new_engine_of) -> None:
    """Conversations with a common system prompt, in joined batches, while someone clears the cache."""
    engine = new_engine_of("llama")
    expected: dict[int, list[list[int]]] = {}
    outcomes: dict[int, list[list[int]]] = {}

    def history_after(history: list[int], reply: list[int], speaker: int, turn: int) -> list[int]:
        return [*history, *reply, *text(1000 * speaker + turn, 12)]

    for speaker in range(6):
        history = [*STEM, speaker]
        expected[speaker] = []
        for turn in range(4):
            expected[speaker].append(alone(engine.model, ask(history)))
            history = history_after(history, expected[speaker][-1], speaker, turn)

    def talk(speaker: int) -> None:
        history = [*STEM, speaker]
        outcomes[speaker] = []
        for turn in range(4):
            outcomes[speaker].append(answer(engine, ask(history)).token_ids)
            history = history_after(history, outcomes[speaker][-1], speaker, turn)
            if speaker == turn == 2:
                engine.clear_prefix_cache()

    threads = [threading.Thread(target=talk, args=(speaker,)) for speaker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == expected


def test_short_batches_are_run_as_they_are(new_engine_of, positions_of) -> None:
    """Where there is nothing to save, `generate` gets the whole batch."""
    assert prefill_plan.LEAST_SAVED > 2 * 20
    engine = new_engine_of("qwen3")
    positions = positions_of(engine)
    engine.generate([ask(text(30, 20), n=3)])
    assert positions[0] == 60
    assert engine.prefix_cache.num_bytes == 0
