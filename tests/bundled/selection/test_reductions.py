"""Scores of distributions, updates and mean states choose as a model generates; messages may keep distributions."""

from __future__ import annotations

import json

import pytest
from langchain_core.messages import AIMessage

from langnorm import ChatLangNorm, NormSelector, NormTrace, Selection
from langnorm.engines.options import Sampling
from langnorm.engines.requests import Record, Request
from langnorm.errors import OptionError
from langnorm.scores.registry import SCORES, score_samples
from langnorm.scores.samples import Sample
from langnorm.selection import rank
from tests.bundled.test_chat_models import merged
from tests.support.selections import QUESTION, ranking, sampled

pytestmark = pytest.mark.filterwarnings("ignore:.*ended at `max_tokens`")  # sixty tokens are few

FIELDS = ("entropy", "self_certainty", "top5_logprob", "top20_logprob", "top5_mass", "logprob")
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
def test_the_best_is_chosen_by_what_was_kept(chat, abacus_engine, name: str, norms: str) -> None:
    """Each candidate that has two tokens has a score, and the best of those that ended is the message."""
    if SCORES[name].needs_lens and "lens" not in abacus_engine.abilities:
        pytest.skip("this engine has no lens")
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
    with pytest.raises(OptionError, match="Ask the model with `distribution=True`"):
        rank(messages, score="self_certainty")
    with pytest.raises(OptionError, match="Messages do not carry it"):
        rank(messages, score="consensus")


def test_messages_that_keep_distributions_are_ranked_as_the_model_ranks_them(chat) -> None:
    """By default, with the same scores, and also after JSON."""
    best = NormSelector(chat, n=5).invoke(QUESTION)
    messages = sampled(chat, 5, distribution=True)
    again = [AIMessage.model_validate_json(message.model_dump_json()) for message in messages]
    for given in (messages, again):
        ranked = rank(given)
        assert ranking(ranked[0])["score"] == ranking(best)["score"] == Selection().to_dict()["score"]
        assert ranked[0].content == best.content
        scores = [[each["score"] for each in ranking(message)["candidates"]] for message in (ranked[0], best)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_messages_that_keep_a_lens_are_ranked_as_the_model_ranks_them(chat, abacus_engine) -> None:
    """Others are refused, and what is kept must be sound."""
    if "lens" not in abacus_engine.abilities:
        pytest.skip("this engine has no lens")
    weights = {"agreement": 1, "settling": -0.5}
    best = NormSelector(chat, n=4, score=weights, near=0).invoke(QUESTION)
    messages = sampled(chat, 4, lens=True)
    ranked = rank(messages, score=weights, near=0)[0]
    assert ranked.content == best.content
    scores = [[each["score"] for each in ranking(message)["candidates"]] for message in (ranked, best)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    with pytest.raises(OptionError, match="Ask the model with `lens=True`"):
        rank(sampled(chat, 2), score="settling")
    messages[0].additional_kwargs["langnorm"]["token_lens"]["settling"].pop()
    with pytest.raises(OptionError, match="(?s)token_lens.*not of one length.*lens=True"):
        rank(messages, score="settling")


def test_messages_without_distributions_are_ranked_by_what_they_carry(chat) -> None:
    """Be it one of them that lacks its own: all are ranked alike."""
    messages = sampled(chat, 3, distribution=True)
    assert ranking(rank(messages)[0])["score"] == {"numeral_entropy": 1.0, "deepconf_tail": 0.5}
    del messages[1].additional_kwargs["langnorm"]["token_distribution"]
    assert ranking(rank(messages)[0])["score"] == "numeral_logprob"


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ({"entropy": [1.0]}, "self_certainty"),
        ([], "how sure a model was of each token"),
        ({name: [0.5] for name in FIELDS} | {"entropy": [0.5, 1.0]}, "its lists are not of one length"),
        ({name: ["a"] for name in FIELDS}, "valid number"),
    ],
)
def test_distributions_that_are_none_are_refused(chat, kept, words: str) -> None:
    """With what is wrong with them, and what to do."""
    messages = sampled(chat, 2, distribution=True)
    messages[0].additional_kwargs["langnorm"]["token_distribution"] = kept
    with pytest.raises(OptionError, match=f"(?s)token_distribution.*{words}.*distribution=True"):
        rank(messages)


def test_distributions_of_other_tokens_are_refused(chat) -> None:
    """Of fewer than the message has texts: which of them are numerals, nobody could say."""
    messages = sampled(chat, 2, distribution=True)
    kept = messages[0].additional_kwargs["langnorm"]["token_distribution"]
    messages[0].additional_kwargs["langnorm"]["token_distribution"] = {name: kept[name][:-1] for name in kept}
    with pytest.raises(OptionError, match="Give one of each per token"):
        rank(messages)


@pytest.mark.parametrize("norms", ["off", "tokens"])
def test_a_stream_keeps_the_distributions_that_a_whole_message_keeps(chat, abacus_engine, norms: str) -> None:
    """All of them, once: of each token one number, the log-probability that `logprobs` has."""
    options = {"distribution": True, "logprobs": True, "norms": norms}
    whole = chat.invoke(QUESTION, **options)
    abacus_engine.clear_prefix_cache()  # what starts from there may be rounded otherwise
    chunks = list(chat.stream(QUESTION, **options))
    streamed = merged(chunks)
    assert len([chunk for chunk in chunks if chunk.content or chunk.additional_kwargs]) > 10
    if norms == "tokens" and abacus_engine.streams_norms:
        assert len([chunk for chunk in chunks if "token_norms" in chunk.additional_kwargs.get("langnorm", {})]) > 10
    kept = whole.additional_kwargs["langnorm"]["token_distribution"]
    assert set(kept) == set(FIELDS)
    assert {len(values) for values in kept.values()} == {whole.usage_metadata["output_tokens"]}
    for name, values in streamed.additional_kwargs["langnorm"]["token_distribution"].items():
        assert values == pytest.approx(kept[name], rel=1e-3, abs=1e-5)
    logprobs = [entry["logprob"] for entry in whole.response_metadata["logprobs"]["content"]]
    assert kept["logprob"] == pytest.approx(logprobs, rel=1e-4, abs=1e-6)
    assert all(value >= 0 for value in kept["entropy"])
