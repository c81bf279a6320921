"""Options are checked when they are made, before any model is touched."""

from __future__ import annotations

import pytest

from langnorm.errors import OptionError
from langnorm.options import Sampling


def test_defaults_are_greedy() -> None:
    """A sampling without arguments takes the most likely token and stops nowhere by itself."""
    sampling = Sampling()
    assert (sampling.temperature, sampling.n, sampling.max_tokens, sampling.stop) == (0.0, 1, None, ())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", True),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("top_k", 2.5),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("max_tokens", 0),
        ("seed", "1"),
        ("n", 0),
        ("stop", 3),
        ("stop", ["a", ""]),
    ],
)
def test_values_outside_the_allowed_are_refused(name: str, value: object) -> None:
    """The error shows what was given and says what to use."""
    with pytest.raises(OptionError, match=rf"`{name}=.*` is not allowed\. Use ") as caught:
        Sampling(**{name: value})  # type: ignore[arg-type]
    assert repr(value) in str(caught.value)


def test_stop_takes_a_text_or_a_list() -> None:
    """One text and a list of one text mean the same."""
    assert Sampling(stop="END").stop == Sampling(stop=["END"]).stop == ("END",)  # type: ignore[arg-type]
