"""What is said of models and options that vLLM does not run, before it is imported."""

from __future__ import annotations

import importlib.util

import pytest

import langnorm.abacus
from langnorm import ChatLangNorm
from langnorm.engines.registry import get_engine
from langnorm.engines.requests import Grammar, ReasoningMarks
from langnorm.engines.vllm.loading import load_tokenizer, suits, weights_key
from langnorm.engines.vllm.options import VllmOptions
from langnorm.engines.vllm.order import Order
from langnorm.errors import MissingDependencyError, ModelError, OptionError
from langnorm.interventions.options import Steering
from langnorm.interventions.plan import Plan, Plans


@pytest.mark.parametrize(
    ("engine_kwargs", "words"),
    [
        ({"model": "x"}, "said by `model`"),
        ({"dtype": "bfloat16"}, r'said by `model_kwargs=\{"dtype": \.\.\.\}`'),
        ({"data_parallel_size": 2}, "`data_parallel_size` is not possible with langnorm: with several engines"),
        ({"pipeline_parallel_size": 2}, "spread over processes"),
        ({"speculative_config": {"method": "ngram"}}, "only guessed"),
        ({"enable_dbo": True}, "a pass would be cut in two"),
        ({"in_process": 1}, "Use True or False"),
        ({"verbose": "yes"}, "Use True or False"),
        ({"interventions": "all"}, "Use True or False"),
        ({"additional_config": 3}, "Use a mapping"),
        ({"in_process": True, "tensor_parallel_size": 2}, "Leave `in_process` out"),
    ],
)
def test_options_that_are_refused(engine_kwargs, words) -> None:
    """With what to do in their place."""
    with pytest.raises(OptionError, match=words):
        VllmOptions.from_dict(engine_kwargs)


def test_options_that_are_taken() -> None:
    """Those that are refused may have the value that they have anyway; a misspelt one is named with what was meant."""
    options = VllmOptions.from_dict({"verbose": True, "max_model_len": 4096, "data_parallel_size": 1})
    assert (options.in_process, options.interventions, options.verbose) == (False, False, True)
    options.check_names(["max_model_len", "data_parallel_size"])
    with pytest.raises(OptionError, match=r"has no option `max_model_length`.*Did you mean `max_model_len`"):
        VllmOptions.from_dict({"max_model_length": 1}).check_names(["max_model_len"])
    with pytest.raises(OptionError, match="Did you mean `interventions`"):
        VllmOptions.from_dict({"intervention": True}).check_names(["max_model_len"])


def test_models_that_are_refused(tmp_path) -> None:
    """GGUF files, and arguments that only transformers knows."""
    path = tmp_path / "some.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match='Use `engine="llamacpp"`'):
        weights_key(str(path), {}, {})
    with pytest.raises(OptionError, match="does not know `device_map` of `model_kwargs`"):
        weights_key("abacus", {"device_map": "auto"}, {})


def test_two_spellings_of_one_model_share_it() -> None:
    """Another option is another engine."""
    key = weights_key("abacus", {}, {"max_model_len": 2048})
    assert key == weights_key(str(langnorm.abacus.path()), {"dtype": None}, {"max_model_len": 2048})
    assert key != weights_key("abacus", {}, {"max_model_len": 1024})
    assert not suits("abacus", {})


def test_the_tokenizer_needs_no_vllm(tokenizer) -> None:
    """So tokens are counted without it."""
    assert load_tokenizer("abacus", {}).chat_template == tokenizer.chat_template
    assert ChatLangNorm(engine="vllm").get_num_tokens("Hello") > 0


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_where_vllm_is_missing_the_error_says_what_to_install() -> None:
    """At the first call."""
    with pytest.raises(MissingDependencyError, match=r"pip install 'langnorm\[vllm\]'"):
        get_engine("vllm", "abacus", {})


def test_orders_travel_as_plain_types() -> None:
    """What is read again is what was written."""
    order = Order(
        key="k",
        num_prompt_tokens=3,
        layers=(1, 2),
        plans=Plans(steering=Plan(Steering(), (2,), None)),
        grammar=Grammar("start: /x/", 2, ReasoningMarks("<a>", "</a>", is_open=False)),
        end_ids=(7,),
        max_tokens=5,
    )
    assert Order.from_dict(order.to_dict()) == order
    assert Order.from_dict(Order(key="k", num_prompt_tokens=1).to_dict()) == Order(key="k", num_prompt_tokens=1)
