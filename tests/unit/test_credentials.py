"""Tokens and passwords are not shown."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler
from pydantic import SecretStr

from langnorm import ChatLangNorm
from langnorm.credentials import hide_credentials, mask_credentials, reveal_credentials
from langnorm.errors import OptionError
from langnorm.testing import ScriptedEngine

SECRET = "correct horse battery"

SECRET_OPTIONS = [
    {"token": SECRET},
    {"use_auth_token": SECRET},
    {"hf_token": SECRET},
    {"api_key": SECRET},
    {"AWS_SECRET_ACCESS_KEY": SECRET},
    {"headers": {"Authorization": SECRET}},
    {"headers": {"X-Api-Key": SECRET, "cookie": [SECRET]}},
    {"storage": {"credentials": {"any": SECRET}}},
    {"auth": ("user", SECRET)},
    {"token": SECRET.encode()},
    {"proxies": {"https": f"http://user:{SECRET.replace(' ', '')}@proxy:80"}},
    {"anything": f"Bearer {SECRET.replace(' ', '')}"},
    {"list": [{"nested": "hf_abcdefghijklmnop"}]},
]


@pytest.mark.parametrize("options", SECRET_OPTIONS, ids=str)
def test_secrets_are_hidden_and_come_back(options) -> None:
    """Whatever holds a secret shows asterisks, at any depth, and the loader is given what the user gave."""
    hidden = hide_credentials(options)
    assert "*****" in repr(hidden)
    for part in (SECRET, SECRET.replace(" ", ""), "hf_abc"):
        assert part not in repr(hidden)
    revealed = reveal_credentials(hidden)
    assert revealed == options or revealed == {"token": SECRET}  # bytes become text
    assert hide_credentials(hidden) == hidden


@pytest.mark.parametrize(
    "options",
    [
        {"pad_token": "<pad>", "eos_token_id": 3, "bos_token": "<s>", "tokenizer": "x"},
        {"token": True, "use_auth_token": None},
        {"device_map": {"": "cpu"}, "dtype": "bfloat16", "attn_implementation": "sdpa"},
        {"revision": "main", "chat_template": "{{ messages }} https://a.b/c"},
    ],
)
def test_what_is_no_secret_is_shown(options) -> None:
    """Names of tokens of text, flags and ordinary options stay as they are."""
    assert hide_credentials(options) == options


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_hiding_loses_nothing(value) -> None:
    """What was hidden and revealed is what it was."""
    assert reveal_credentials(hide_credentials(value)) == value


def test_texts_are_masked() -> None:
    """A secret among the options is not shown by an error's text; the longer of two first."""
    options = {"token": "abcd", "api_key": SecretStr("abcdefgh")}
    assert mask_credentials("at abcdefgh, abcd", options) == "at **********, **********"


class Spy(BaseCallbackHandler):
    """Keeps what tracers are told."""

    seen = ""

    def on_chat_model_start(self, serialized, messages, **kwargs) -> None:  # noqa: ARG002
        """Keep it."""
        self.seen += repr(serialized) + repr(kwargs) + json.dumps(kwargs, default=str)


@pytest.mark.parametrize("options", SECRET_OPTIONS, ids=str)
def test_the_chat_model_shows_no_secret(options) -> None:
    """Neither in repr, cache keys, JSON, callbacks, nor in messages and what is pickled of them."""
    spy = Spy()
    chat = ChatLangNorm(engine=ScriptedEngine(["yes"]), model_kwargs=options)
    message = chat.invoke("hi", config={"callbacks": [spy]})
    places = [repr(chat), str(chat), str(chat._identifying_params), chat._get_llm_string(), chat.model_dump_json(
        include={"model_kwargs"}), spy.seen, repr(message), pickle.dumps(message).decode("latin-1")]  # fmt: skip
    assert spy.seen
    for place in places:
        for part in (SECRET, SECRET.replace(" ", ""), "hf_abc"):
            assert part not in place


@pytest.mark.parametrize(
    "fields", [{"model_kwargs": [("token", SECRET)]}, {"model_kwargs": SECRET}, {"api_key": [SECRET]}]
)
def test_errors_show_no_secret(fields) -> None:
    """A value of the wrong type is told by its type, where it may be a secret."""
    with pytest.raises(OptionError) as raised:
        ChatLangNorm(**fields)
    assert SECRET not in str(raised.value)
