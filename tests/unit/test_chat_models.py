"""What a chat refuses when it is made, before a model is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from langnorm import ChatLangNorm
from langnorm.errors import OptionError


@pytest.mark.parametrize("given", [{"top_logprobs": -1}, {"top_logprobs": 21}, {"logprobs": 3}])
def test_wrong_numbers_are_refused(given: dict[str, Any]) -> None:
    """Before anything is loaded."""
    with pytest.raises(OptionError, match="is not allowed"):
        ChatLangNorm(**given)
