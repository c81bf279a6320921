"""What the llama.cpp engine reads from a file, without llama.cpp."""

from __future__ import annotations

import re
from typing import Any

import pytest

from langnorm.engines.llamacpp.engine import _read_sampling
from langnorm.errors import ModelError


class Metadata:
    """Says what a file says of itself."""

    def __init__(self, of_sampling: dict[str, str]) -> None:
        self._of_sampling = of_sampling

    def metadata(self, key: str) -> str | None:
        """Returns the text under a key."""
        return self._of_sampling.get(key.removeprefix("general.sampling."))


def test_what_a_file_says_of_sampling_is_the_default() -> None:
    """As far as it says anything."""
    model: Any = Metadata({"temp": "0.700000", "top_k": "20"})
    assert _read_sampling(model) == {"temperature": 0.7, "top_k": 20}
    nothing: Any = Metadata({})
    assert _read_sampling(nothing) == {}


@pytest.mark.parametrize(("key", "text"), [("top_p", "hot"), ("top_k", "2.5"), ("top_p", "1.5"), ("temp", "nan")])
def test_what_says_nothing_is_an_error_of_the_file(key: str, text: str) -> None:
    """It names the key and the value, not an option that nobody gave."""
    model: Any = Metadata({key: text})
    said = f"{{'general.sampling.{key}': '{text}'}}"
    with pytest.raises(ModelError, match=f"the GGUF file says of sampling, {re.escape(said)}, is not allowed"):
        _read_sampling(model)
