"""Scores of distributions, updates and mean states choose as a model generates, and leave nothing on messages."""

from __future__ import annotations

import json

import pytest

from langnorm import ChatLangNorm, NormSelector, NormTrace
from langnorm.engines.options import Sampling
from langnorm.engines.requests import Record, Request
from langnorm.errors import OptionError
from langnorm.scores.registry import SCORES, score_samples
from langnorm.scores.samples import Sample
from langnorm.selection import rank
from tests.support.selections import QUESTION, ranking, sampled

pytestmark = pytest.mark.filterwarnings("ignore:.*ended at `max_tokens`")  # sixty tokens are few

NAMES = [name for name, score in SCORES.items() if score.needs_reductions]
SOME = ("self_certainty", "relative_update", "consensus")


@pytest.fixture(scope="module")
def chat() -> ChatLangNorm:
    """Abacus with samples that differ, the same ones in every call."""
    return ChatLangNorm(temperature=1.0, seed=5, max_tokens=60)


@pytest.mark.parametrize(
    ("name", "norms"),
    [*((name, "steps") for name in NAMES), *((name, "off") for name in SOME), *((name, "tokens") for name in SOME)],
)
def test_the_best_is_chosen_by_what_was_kept(chat, name: str, norms: str) -> None:
    """Each candidate that has two tokens has a score, and the best of those that ended is the message."""
    best = NormSelector(chat.bind(norms=norms), n=3, score=name, near=0).invoke(QUESTION)
    found = ranking(best)
    scores = [candidate["score"] for candidate in found["candidates"]]
    assert None not in scores
    ended = [candidate["score"] for candidate in found["candidates"] if candidate["finish_reason"] == "stop"]
    assert scores[found["chosen"]] == max(ended or scores)
    assert "reductions" not in json.dumps(best.response_metadata) + json.dumps(best.additional_kwargs)
    if norms != "off":
        assert NormTrace.from_message(best).tokens


def test_scores_are_those_of_the_engine(chat, abacus_engine) -> None:
    """Which keeps what the score reads, of the same tokens."""
    if "mean_states" not in abacus_engine.abilities:
        pytest.skip("this engine keeps no mean states")
    found = ranking(NormSelector(chat, n=4, score={"consensus": 1, "self_certainty": 1}).invoke(QUESTION))
    prompt = tuple(
        abacus_engine.tokenizer.apply_chat_template(
            [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_dict=False
        )
    )
    sampling = Sampling(**{**abacus_engine.sampling_defaults, "temperature": 1.0, "seed": 5, "max_tokens": 60, "n": 4})
    record = Record(norms=False, distribution=True, mean_states=True)
    completions = abacus_engine.generate([Request(prompt, sampling, record)])[0].completions
    samples = [Sample((), (), reductions=completion.reductions) for completion in completions]
    for name in ("consensus", "self_certainty"):
        of_messages = [candidate["scores"][name] for candidate in found["candidates"]]
        assert of_messages == pytest.approx(score_samples(name, samples), rel=1e-3, abs=1e-6)


def test_samples_are_pruned_by_them(chat) -> None:
    """By what was kept of their tokens so far."""
    for name in ("deepconf_lowest", "consensus", "relative_update"):
        best = NormSelector(chat, n=6, score=name, prune={"rule": "halving", "every": 8, "least": 2}).invoke(QUESTION)
        reasons = [candidate["finish_reason"] for candidate in ranking(best)["candidates"]]
        assert reasons.count("pruned") >= 1


def test_messages_cannot_be_ranked_by_them(chat) -> None:
    """They do not carry what is read; the error says what to do."""
    messages = sampled(chat, 2)
    with pytest.raises(OptionError, match="Messages do not carry it"):
        rank(messages, score="self_certainty")
