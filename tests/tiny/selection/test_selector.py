"""A selection asks the engine once, and is refused before anything is computed."""

from __future__ import annotations

import pytest

from langnorm import ChatLangNorm
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.errors import OptionError
from tests.support.calls import counted_passes
from tests.support.selections import ranking

pytestmark = pytest.mark.filterwarnings("ignore:.*ended at `max_tokens`")  # random weights end no answer


def test_all_samples_come_from_one_call_of_the_engine(engine_of) -> None:
    """The candidates share their forward passes."""
    engine = engine_of("qwen3")
    chat = ChatLangNorm(engine=engine, temperature=1.0, max_tokens=5, seed=1)
    with counted_passes(engine.model) as passes:
        chat.with_selection(n=6, score="mean").invoke("Hi")

    assert set(passes.batch_sizes) == {6}
    assert len(passes) <= 5


def test_a_score_of_thresholds_needs_something_to_compare_with(model_of, tokenizer) -> None:
    """On a model of which nothing is known, that is said before anything is computed."""
    engine = TransformersEngine(model_of("qwen3"), tokenizer)
    chat = ChatLangNorm(engine=engine, temperature=1.0, max_tokens=4)
    with counted_passes(engine.model) as passes, pytest.raises(OptionError, match="Calibrate a NormProfile"):
        chat.with_selection(n=2, score="late_rate").invoke("Hi")
    assert len(passes) == 0
    assert ranking(chat.with_selection(n=2, score="mean").invoke("Hi"))["n"] == 2


def test_an_engine_that_cannot_stop_samples_says_so(model_of, tokenizer) -> None:
    """Early stopping is refused before anything is computed."""

    class WholeAnswersEngine(TransformersEngine):
        abilities = TransformersEngine.abilities - {"prune"}

    engine = WholeAnswersEngine(model_of("qwen3"), tokenizer)
    chat = ChatLangNorm(engine=engine, temperature=1.0, max_tokens=4)
    with counted_passes(engine.model) as passes, pytest.raises(OptionError, match="cannot stop single samples"):
        chat.with_selection(n=2, prune="halving").invoke("Hi")
    assert len(passes) == 0
