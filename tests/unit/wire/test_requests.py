"""The body of a request becomes a call, or an error that says what to change."""

from __future__ import annotations

from typing import Any

import pytest

from langnorm.chat.answer_prefix import AnswerPrefix
from langnorm.errors import OptionError
from langnorm.interventions.options import Recursion
from langnorm.selection.options import Selection
from langnorm.wire.requests import read_call
from tests.support.servers import question


def test_openai_fields_become_options() -> None:
    """Under their names in langnorm; null is as good as nothing, and what says nothing of the answer is passed over."""
    call = read_call(
        question(
            model="abacus",
            temperature=0.5,
            top_p=0.9,
            max_completion_tokens=5,
            stop=["x"],
            seed=3,
            n=2,
            logprobs=True,
            top_logprobs=2,
            top_k=4,
            reasoning_effort="none",
            stream=True,
            stream_options={"include_usage": True},
            user="me",
            metadata={"a": "b"},
            frequency_penalty=0.0,
            presence_penalty=None,
            logit_bias={},
            response_format=None,
        )
    )
    assert call.model == "abacus"
    assert call.is_streamed
    assert call.with_usage
    assert not call.with_findings
    assert call.options == {
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "n": 2,
        "stop": ("x",),
        "logprobs": True,
        "top_logprobs": 2,
        "top_k": 4,
        "max_tokens": 5,
        "enable_thinking": False,
    }


def test_own_options_are_in_an_object() -> None:
    """As a call of ChatLangNorm takes them; a threshold by layer has texts for layers, as JSON does."""
    own = {
        "norms": "tokens",
        "recursion": {"max_extra": 2, "threshold": {"9": 50.0}},
        "selection": {"n": 4},
        "steering": None,
        "norm_profile": None,
        "answer_prefix": {"token_ids": [1, 2]},
    }
    call = read_call(question(langnorm=own, chat_template_kwargs={"enable_thinking": False}))
    assert call.with_findings
    assert call.options == {
        "norms": "tokens",
        "recursion": Recursion(max_extra=2, threshold={9: 50.0}),
        "selection": Selection(n=4),
        "steering": None,
        "norm_profile": None,
        "answer_prefix": AnswerPrefix(token_ids=(1, 2)),
        "enable_thinking": False,
    }


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"temprature": 1}, "Did you mean `temperature`"),
        ({"temperature": "hot"}, "`temperature='hot'` is not allowed"),
        ({"frequency_penalty": 0.5}, "`frequency_penalty=0.5` is not allowed"),
        ({"logit_bias": {"5": 1}}, "`logit_bias="),
        ({"functions": [{"name": "f"}]}, "`functions="),
        ({"modalities": ["audio"]}, "`modalities="),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "two names for the same"),
        ({"model": 5}, "`model=5`"),
        ({"stream": "yes"}, "`stream='yes'`"),
        ({"stream_options": {"include_usage": True}}, "together with `stream`"),
        ({"stream": True, "stream_options": {"include_usge": True}}, "Did you mean `include_usage`"),
        ({"reasoning_effort": "huge"}, "`reasoning_effort='huge'`"),
        ({"chat_template_kwargs": {"evil": 1}}, "`chat_template_kwargs="),
        ({"langnorm": 5}, "`langnorm=5`"),
        ({"langnorm": {"norm": "off"}}, "Did you mean `norms`"),
        ({"langnorm": {"norms": "of"}}, "`norms='of'` is not allowed"),
        ({"langnorm": {"max_batch_size": 1}}, "no option `max_batch_size`"),
        ({"langnorm": {"model": "x"}}, "no option `model`"),
        ({"langnorm": {"norm_profile": "/etc/passwd"}}, "a profile is the server's own"),
        ({"langnorm": {"answer_prefix": {"token_ids": [-1]}}}, "Take it as the model gave it"),
        ({"langnorm": {"answer_prefix": {"token_ids": [1], "layers": [1, 2], "norms": [[1.0]]}}}, "one for each layer"),
        ({"langnorm": {"answer_prefix": {"token_ids": [1], "logprobs": [{}]}}}, "without a log-probability"),
        ({"langnorm": {"recursion": {"max_xtra": 1}}}, "Did you mean `max_extra`"),
    ],
)
def test_what_is_not_allowed_is_refused(fields: dict[str, Any], match: str) -> None:
    """Before anything is computed, with the words that a call of ChatLangNorm has for it."""
    with pytest.raises(OptionError, match=match):
        read_call(question(**fields))


def test_a_body_that_is_no_object_is_refused() -> None:
    """A list, a text and a number among them."""
    for body in ([], "x", 5, None):
        with pytest.raises(OptionError, match="Give a JSON object"):
            read_call(body)
