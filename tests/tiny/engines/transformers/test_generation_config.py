"""A model's own generation configuration: its defaults hold for a chat, and the rest is left to `generate`."""

from __future__ import annotations

import copy
import logging
import re

import pytest
import torch

from langnorm import ChatLangNorm
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.errors import ModelError
from tests.support.calls import (
    PROMPTS,
    answer,
    answers,
    ask,
    counted_passes,
    langnorm_threads,
    plain_tokens,
    tokens,
    wait_until,
)

PROMPT = PROMPTS[2]


class ListeningEngine(TransformersEngine):
    """Keeps what it was asked and what it answered."""

    def generate(self, requests):
        """Returns the responses."""
        responses = super().generate(requests)
        self.last = requests[0], responses[0].completions[0]
        return responses


@pytest.fixture
def configured(model_of, tokenizer):
    """Returns an engine over a model with these fields in its generation configuration."""
    models = []

    def build(family: str = "qwen3", **fields) -> tuple[ListeningEngine, torch.nn.Module]:
        model = model_of(family, seed=60)
        models.append((model, copy.deepcopy(model.generation_config)))
        model.generation_config.update(**fields)
        return ListeningEngine(model, tokenizer), model

    yield build
    wait_until(lambda: not langnorm_threads())  # an engine puts the configuration back when its batch is over
    for model, config in models:
        model.generation_config = config


@pytest.mark.parametrize(
    "fields",
    [
        {"repetition_penalty": 1.4},
        {"repetition_penalty": 1.1, "no_repeat_ngram_size": 2},
        {"suppress_tokens": list(range(100, 600))},
        {"bad_words_ids": [[i] for i in range(20, 400)]},
        {"min_new_tokens": 15},
        {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.1},
        {"do_sample": True, "top_h": 0.5, "typical_p": 0.7, "epsilon_cutoff": 1e-3, "eta_cutoff": 1e-3},
        {"num_beams": 3, "length_penalty": 0.5, "num_return_sequences": 2},
        {"max_length": 30},
        {"use_cache": False},
        {"return_dict_in_generate": True, "output_scores": True},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_greedy_chat_equals_generate_under_own_configuration(fields, configured) -> None:
    """With `temperature=0`, a chat says what greedy `model.generate` says under the model's configuration."""
    engine, model = configured(**fields)
    chat = ChatLangNorm(engine=engine, temperature=0, max_tokens=25)

    chat.invoke("How many pens are left?")

    request, completion = engine.last
    alone = {"num_beams": 1, "num_return_sequences": 1, "return_dict_in_generate": False, "max_new_tokens": 25}
    assert completion.token_ids == plain_tokens(model, request.prompt_ids, **alone)


@pytest.mark.parametrize(
    "fields_of",
    [
        lambda pad: {"sequence_bias": [[[pad, 811, 77], 1e3]]},
        lambda _: {"encoder_repetition_penalty": 4.0},
        lambda _: {"no_repeat_ngram_size": 1},
        lambda _: {"encoder_no_repeat_ngram_size": 1},
        lambda pad: {"bad_words_ids": [[pad, 811, i] for i in range(1000)]},
        lambda _: {"min_length": 20},
        lambda _: {"forced_bos_token_id": 77},
        lambda _: {"forced_eos_token_id": 78},
        lambda _: {"min_new_tokens": 8, "exponential_decay_length_penalty": (5, 1.3)},
        lambda _: {"suppress_tokens": list(range(100, 300)), "begin_suppress_tokens": list(range(300, 900))},
    ],
    ids=lambda fields_of: next(iter(fields_of(0))),
)
def test_rows_of_a_batch_obey_own_configuration_as_if_alone(fields_of, configured) -> None:
    """Padding, and the lengths of others, are of no account to what the model's configuration rules."""
    _, model = configured()
    limits = (30, 27, 24, 21, 18)
    # Padding that one row says after a while, and an end that another reaches soon.
    *_, pad = plain_tokens(model, PROMPTS[0], max_new_tokens=9)
    *_, end = plain_tokens(model, PROMPTS[1], max_new_tokens=4)
    engine, _ = configured(pad_token_id=pad, eos_token_id=end, **fields_of(pad))

    found = tokens(engine, [ask(prompt, max_tokens=n) for prompt, n in zip(PROMPTS, limits, strict=True)])

    assert found == [plain_tokens(model, prompt, max_new_tokens=n) for prompt, n in zip(PROMPTS, limits, strict=True)]


@pytest.mark.parametrize(
    "fields",
    [{"max_time": 1e-6}, {"prompt_lookup_num_tokens": 3}, {"guidance_scale": 1.5}],
    ids=lambda fields: next(iter(fields)),
)
def test_own_configuration_neither_ends_a_batch_nor_adds_passes(fields, configured) -> None:
    """A batch ends with its rows, and each pass through the model is one token of each row."""
    engine, model = configured(**fields)
    requests = [ask(prompt, layers=(1, 2), max_tokens=6) for prompt in PROMPTS]

    with counted_passes(model) as passes:
        completions = answers(engine, requests)
    *_, last = engine.stream(requests[0])

    assert passes.batch_sizes == [5] * 6
    assert [len(completion.norms) for completion in completions] == [5] * 5
    assert last.completion.token_ids == completions[0].token_ids


def test_sampling_defaults_are_those_of_model(configured) -> None:
    """Options that nobody gave come from the model's configuration, and a given one replaces its own only."""
    fields = {"temperature": 0.7, "top_k": 7, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2}
    engine, _ = configured(do_sample=True, max_new_tokens=12, **fields)

    ChatLangNorm(engine=engine, seed=4).invoke("Hello")
    request, completion = engine.last
    ChatLangNorm(engine=engine, seed=4, top_k=3).invoke("Hello", temperature=0.5)
    changed, _ = engine.last

    assert completion.token_ids == answer(engine, ask(request.prompt_ids, seed=4, max_tokens=12, **fields)).token_ids
    assert {name: getattr(request.sampling, name) for name in fields} == fields
    assert {name: getattr(changed.sampling, name) for name in fields} == fields | {"top_k": 3, "temperature": 0.5}


def test_model_without_sampling_is_greedy(configured) -> None:
    """Where the configuration does not ask for sampling, nor does a chat."""
    engine, model = configured(max_new_tokens=9)

    ChatLangNorm(engine=engine).invoke("Hello")

    request, completion = engine.last
    assert completion.token_ids == plain_tokens(model, request.prompt_ids, max_new_tokens=9)


def test_any_of_several_end_tokens_ends_an_answer(configured, model_of) -> None:
    """A list of end tokens is honoured, and the end token is the answer's last."""
    plain = plain_tokens(model_of("qwen3", seed=60), PROMPT, max_new_tokens=20)
    ends = [plain[9], plain[5], 1017]
    engine, _ = configured(eos_token_id=ends)

    completion = answer(engine, ask(PROMPT, max_tokens=20))

    first = min(plain.index(end) for end in ends if end in plain)
    assert completion.token_ids == plain[: first + 1]
    assert completion.finish_reason == "stop"


@pytest.mark.parametrize("as_list", [True, False], ids=["list", "text"])
def test_stop_texts_of_model_end_an_answer(as_list, configured) -> None:
    """Stop texts of the configuration are cut from an answer, until a call gives its own."""
    engine, _ = configured()
    whole = ChatLangNorm(engine=engine, max_tokens=25).invoke("Hello").content
    stop = whole[7:10]
    engine, _ = configured(stop_strings=[stop] if as_list else stop)

    reply = ChatLangNorm(engine=engine, max_tokens=25).invoke("Hello")
    other = ChatLangNorm(engine=engine, max_tokens=25).invoke("Hello", stop=["never said"])

    assert reply.content == whole.partition(stop)[0]
    assert reply.response_metadata["finish_reason"] == "stop"
    assert other.content == whole


@pytest.mark.parametrize("pad", [None, 0, 5, 1024, -1])
def test_padding_token_is_of_no_account(pad, configured) -> None:
    """Any token or none may be the padding token, also one that the answer contains, or one that has no embedding."""
    requests = [ask(prompt, max_tokens=6 + 5 * i) for i, prompt in enumerate(PROMPTS)]
    engine, _ = configured(pad_token_id=1015)
    expected = tokens(engine, requests)
    said = expected[2][2] if pad == 5 else pad

    engine, model = configured(pad_token_id=said)
    assert engine.sampling_defaults["temperature"] == 0  # nothing is refused

    with counted_passes(model) as passes:
        assert tokens(engine, requests) == expected
    assert set(passes.batch_sizes) == {len(PROMPTS)}  # a batch that fails is run again in parts


def test_configuration_is_left_as_it_was(configured) -> None:
    """A call changes nothing in the model's generation configuration."""
    engine, model = configured(do_sample=True, temperature=0.7, top_k=20, repetition_penalty=1.1)
    before = model.generation_config.to_dict()

    answer(engine, ask(PROMPT, temperature=0.3, top_k=3, max_tokens=3))

    assert model.generation_config.to_dict() == before


@pytest.mark.parametrize("fields", [{"max_length": 30}, {"do_sample": True, "min_p": 0.1, "top_h": 0.5}], ids=str)
def test_own_configuration_is_no_reason_to_complain(fields, configured, caplog, monkeypatch) -> None:
    """Transformers logs nothing about settings that langnorm takes over from `generate`."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    engine, _ = configured(**fields)

    with caplog.at_level(logging.WARNING, logger="transformers"):
        answer(engine, ask(PROMPT, max_tokens=3))

    assert caplog.messages == []


def test_tokenizer_and_model_without_end_token(configured) -> None:
    """A model without an end token and a padding token runs to its limit, in batches too."""
    engine, model = configured(eos_token_id=None, pad_token_id=None)
    engine = TransformersEngine(model, copy.deepcopy(engine.tokenizer))
    engine.tokenizer.eos_token = engine.tokenizer.pad_token = None
    requests = [ask(prompt, max_tokens=3 + i) for i, prompt in enumerate(PROMPTS)]

    found = tokens(engine, requests)

    assert [len(ids) for ids in found] == [3, 4, 5, 6, 7]
    assert found == [answer(engine, request).token_ids for request in requests]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"eos_token_id": "<|im_end|>"}, "`eos_token_id='<|im_end|>'` in the model's generation configuration"),
        ({"eos_token_id": [3, "x"]}, "`eos_token_id="),
        ({"eos_token_id": True}, "`eos_token_id="),
        ({"temperature": "hot", "do_sample": True}, "`temperature='hot'`"),
        ({"top_k": -3}, "`top_k=-3`"),
        ({"stop_strings": 5}, "`stop=5`"),
    ],
)
def test_a_configuration_that_says_nothing_is_an_error_before_any_compute(configured, fields, said) -> None:
    """It names the field and the file, not an option that nobody gave."""
    engine, _ = configured(**fields)
    with pytest.raises(ModelError, match=re.escape(said)) as caught, counted_passes(engine.model) as passes:
        ChatLangNorm(engine=engine).invoke("Hi")
    assert "generation_config.json" in str(caught.value)
    assert passes.batch_sizes == []
