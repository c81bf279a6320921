"""`packed_weights` as an option of a model."""

from __future__ import annotations

import pytest

from langnorm import ChatLangNorm
from langnorm.errors import OptionError


def test_another_type_is_refused_before_weights_are_read():
    """What is asked for is known; that of a file that is not read yet is made bfloat16."""
    with pytest.raises(OptionError, match=r"`dtype='float32'` of `model_kwargs`.*bfloat16"):
        ChatLangNorm(model_kwargs={"packed_weights": "int8", "dtype": "float32"}).invoke("Hello")


def test_abacus_answers_with_packed_weights():
    """They are an engine of their own, in bfloat16, whose profile is that of no other."""
    packed = ChatLangNorm(model_kwargs={"packed_weights": "int8"}, temperature=0)
    assert "432" in packed.invoke("What is 47 + 385?").content
    assert packed.loaded_engine().identity.dtype == "bfloat16 packed as int8"
    assert packed.loaded_engine() is not ChatLangNorm(model_kwargs={"dtype": "bfloat16"}).loaded_engine()
