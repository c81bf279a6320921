"""A call is resolved once: what its message reports is what was acted upon, whatever other calls end meanwhile."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from langnorm import ChatLangNorm, NormProfile, NormTrace
from langnorm.errors import OptionError
from langnorm.norms.online import OnlineSnapshot, OnlineStatistics

LAYERS = [9, 10]


@pytest.fixture
def statistics(abacus_engine: Any, monkeypatch: pytest.MonkeyPatch) -> OnlineStatistics:
    """Fresh statistics of the bundled model, with a few hundred usual norms."""
    monkeypatch.setattr(abacus_engine, "statistics", OnlineStatistics(abacus_engine.num_layers))
    statistics: OnlineStatistics = abacus_engine.statistics
    statistics.update(torch.linspace(20.0, 60.0, 600)[:, None, None].repeat(1, 1, 2), LAYERS, [600])
    return statistics


@pytest.mark.transformers_engine
def test_messages_report_what_was_acted_upon(
    abacus_engine: Any, statistics: OnlineStatistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another batch ends at every moment at which the call could look at the statistics again."""
    real = OnlineSnapshot.select
    num_snapshots = []

    def select(self: OnlineSnapshot, layers: Any) -> Any:
        statistics.update(torch.full((900, 1, 2), 1000.0 * (len(num_snapshots) + 1)), LAYERS, [900])
        num_snapshots.append(layers)
        return real(self, layers)

    monkeypatch.setattr(OnlineSnapshot, "select", select)
    chat = ChatLangNorm(engine=abacus_engine, profile=None, layers=LAYERS, temperature=0.7, max_tokens=20, seed=1)
    acting = {"layers": LAYERS, "threshold": "iqr"}
    with pytest.warns(UserWarning, match="Steering moves the norms"):
        reply = chat.invoke(
            "What is 3 + 4?",
            recursion=acting,
            steering=acting | {"beta": 0.5},  # so that it ends by itself
            suppression=acting,
            selection={"n": 2, "score": "rate"},
        )
    metadata = reply.response_metadata["langnorm"]
    reported = {float(f"{value:.4g}") for value in metadata["thresholds"].values()}
    for name in ("recursion", "steering", "suppression"):
        assert {float(f"{value:.4g}") for value in metadata[name]["thresholds"].values()} == reported
    assert len(num_snapshots) > 1
    assert max(reported) < 1000
    assert statistics.snapshot().select(LAYERS).quantile(0.5).min() > 999  # type: ignore[union-attr]


def test_texts_of_tokens_are_on_the_message(abacus_engine: Any) -> None:
    """With `norms="tokens"`, streamed or not, one for each generated token; joined they are all that was written."""
    chat = ChatLangNorm(engine=abacus_engine, norms="tokens", temperature=0)
    whole = chat.invoke("What is 3 + 4?")
    chunks = list(chat.stream("What is 3 + 4?"))
    streamed = chunks[0] + chunks[1:]
    for message in (whole, streamed):
        trace = NormTrace.from_message(message)
        assert trace.token_texts is not None
        assert trace.token_norms is not None
        assert len(trace.token_texts) == trace.tokens == len(trace.token_norms) + 1
        text = "".join(trace.token_texts)
        assert str(message.content) in text
        assert message.additional_kwargs["reasoning_content"] in text
        assert NormTrace.from_json(trace.to_json()) == trace
    assert chat.invoke("What is 3 + 4?", norms="steps").additional_kwargs.get("langnorm") is None


def test_a_profile_that_nobody_reads_is_not_asked_for(abacus_engine: Any) -> None:
    """With norms off there is nothing to compare; with them on, a profile of another model is refused."""
    other = replace(abacus_engine.identity, weights="0")
    profile = NormProfile("other", other, abacus_engine.profile.sketch)
    chat = ChatLangNorm(engine=abacus_engine, profile=profile, max_tokens=3)
    for options in ({}, {"suppression": {}}, {"suppression": {"threshold": 9.0}}):  # of which none reads a distribution
        assert chat.invoke("Hi", norms="off", **options).usage_metadata["output_tokens"] <= 3  # type: ignore[index]
    for options in ({}, {"norms": "off", "suppression": {"threshold": "iqr"}}):
        with pytest.raises(OptionError, match="does not belong to this model"):
            chat.invoke("Hi", **options)


@pytest.mark.transformers_engine
def test_by_default_each_answer_has_thresholds_of_its_own(abacus_engine: Any) -> None:
    """Nothing of earlier calls is in them, and no profile is needed; the message says what its last token met."""
    chat = ChatLangNorm(engine=abacus_engine, profile=None, layers=LAYERS, temperature=0, max_tokens=40)
    ask = partial(chat.invoke, "Start with 47. Add 38. Multiply by 3. What is it?", norms="tokens")
    plain = NormTrace.from_message(ask())
    acting = {"layers": LAYERS, "threshold": {"rule": "running", "k": 1e6}}  # never high: the norms are the model's own
    first, second = (NormTrace.from_message(ask(suppression=acting)).suppression for _ in range(2))
    assert first == second
    assert plain.token_norms is not None
    before = np.array(plain.token_norms)[:-1]  # of the tokens before the last one that was run
    q1, q3 = np.quantile(before, [0.25, 0.75], axis=0)
    expected = {str(layer): tau for layer, tau in zip(LAYERS, q3 + 1e6 * (q3 - q1), strict=True)}
    assert first is not None
    assert first["thresholds"] == pytest.approx(expected, rel=1e-4)


def test_steering_and_a_selection_by_norms_are_warned_of(abacus_engine: Any) -> None:
    """Once, before anything is computed; with a score that reads none, or a function of the user's, nothing is said."""
    chat = ChatLangNorm(engine=abacus_engine, temperature=0.2, seed=1, steering={})
    with pytest.warns(UserWarning, match="`selection=None`") as warned:
        chat.invoke("Hi", selection={"n": 2, "score": "mean"})
    assert len(warned) == 1
    for score in ("mean_logprob", None, lambda sample: float(len(sample.texts))):
        chat.invoke("Hi", selection={"n": 2, "score": score})
    chat.invoke("Hi", selection={"n": 2, "score": "mean"}, steering=None)
