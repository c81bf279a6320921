"""Recursion and steering on the bundled model."""

from __future__ import annotations

from tests.support.calls import answer
from tests.support.interventions import RECURSIONS, STEERING, assert_as_defined, request_of, thresholds


def test_the_bundled_model_is_as_defined(abacus_engine) -> None:
    """With the layers that are late there."""
    prompt = tuple(abacus_engine.tokenizer("<|im_start|>user\nWhat is 47 + 385?<|im_end|>\n")["input_ids"])
    taus = thresholds(abacus_engine, prompt, (9, 10))
    options = (RECURSIONS["several"], STEERING)
    request = request_of(prompt, taus, *options, layers=(9, 10), recorded=tuple(range(12)), num_tokens=20)
    assert_as_defined(abacus_engine.model, request, answer(abacus_engine, request))
