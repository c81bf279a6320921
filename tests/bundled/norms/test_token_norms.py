"""Norms relative to their tokens on Abacus: calibrated, seen by the process, as intensity and as a score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from langchain_core.messages import HumanMessage

from langnorm import ChatLangNorm, NormProfile, NormSelector, NormTrace
from langnorm.errors import OptionError
from langnorm.norms.frozen import frozen_snapshots
from langnorm.norms.online import WARM_UP, OnlineStatistics
from langnorm.norms.token_table import shares_below
from langnorm.selection import rank
from tests.reference.token_table import ListsOfNorms

PROMPTS = ["What is 3 + 4?", "Hello!", "12 * 3", "Take 5. Add 6.", "What is 90 - 8?", "Say hi.", "What is 7 * 8?"]
LAYERS = (9, 10)


@pytest.fixture
def chat(abacus_engine: Any, monkeypatch: pytest.MonkeyPatch) -> ChatLangNorm:
    """Return the bundled model, of which nothing has been seen yet."""
    monkeypatch.setattr(abacus_engine, "statistics", OnlineStatistics(abacus_engine.num_layers))
    return ChatLangNorm(engine=abacus_engine, temperature=0, max_tokens=20, norms="tokens")


def lists_of(replies: list[Any]) -> ListsOfNorms:
    """Return all norms on some messages, by token."""
    lists = ListsOfNorms(len(LAYERS))
    for reply in replies:
        trace = NormTrace.from_message(reply)
        for token_id, row in zip(trace.token_ids or (), trace.token_norms or (), strict=False):
            lists.add(token_id, list(row))
    return lists


def test_calibrated_intensities_relative_to_tokens(
    chat: ChatLangNorm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are those of the answers that the profile was fitted on, through its files; `layer` is what it was."""
    profile = NormProfile.calibrate(chat, PROMPTS, show_progress=False)
    profile.name = "mine"
    profile.save(tmp_path / "p.json")
    loaded = NormProfile.load(tmp_path / "p.json")
    assert loaded == profile
    assert loaded.tokens is not None
    assert loaded.tokens.layers == LAYERS
    lists = lists_of(chat.batch(PROMPTS))
    assert loaded.tokens.num_tokens == len(lists.all_rows) == profile.num_tokens
    assert profile.report is not None
    shares = [profile.report.explained[layer] for layer in LAYERS]
    assert shares == pytest.approx([lists.explained(0), lists.explained(1)], abs=0.01)

    relative = chat.bind(profile=tmp_path / "p.json", intensity="token")
    reply = relative.invoke("What is 60 + 7?")
    trace = NormTrace.from_message(reply)
    assert (trace.intensity_kind, trace.profile) == ("token", "mine")
    assert trace.token_ids is not None
    assert trace.token_norms is not None
    expected = [
        shares_below(np.array(lists.relative(token_id, list(row)))).mean()
        for token_id, row in zip(trace.token_ids, trace.token_norms, strict=False)
    ]
    for step in trace.steps:
        of_step = expected[step.start : step.end]
        assert step.intensity == (pytest.approx(np.mean(of_step), abs=0.01) if of_step else None)
    assert NormTrace.from_json(trace.to_json()) == trace
    streamed = list(relative.stream("What is 60 + 7?"))
    assert NormTrace.from_message(streamed[0] + streamed[1:]).steps == trace.steps
    assert trace.low_steps is None, "so few steps say nothing of what is low"
    monkeypatch.setattr("langnorm.norms.step_ranks.FEWEST_STEPS", 3)
    all_low = NormTrace.from_message(relative.invoke("What is 60 + 7?", low_below=1.0))
    assert all_low.low_steps == tuple(i for i, step in enumerate(trace.steps) if step.intensity is not None)
    plain = NormTrace.from_message(chat.invoke("What is 60 + 7?", profile=profile))
    assert plain.intensity_kind == "layer"
    assert plain.intensity != trace.intensity
    assert plain.token_norms == trace.token_norms
    json.dumps(reply.response_metadata, allow_nan=False)


def test_the_bundled_model_ships_its_table() -> None:
    """So that its intensities may be relative to tokens from the first answer on."""
    chat = ChatLangNorm(temperature=0, max_tokens=20, intensity="token")
    trace = NormTrace.from_message(chat.invoke("What is 47 + 385?"))
    assert (trace.profile, trace.intensity_kind) == ("abacus", "token")
    assert trace.intensity is not None
    assert trace.intensity != NormTrace.from_message(chat.invoke("What is 47 + 385?", intensity="layer")).intensity


def test_a_profile_without_tokens_is_refused_where_they_are_needed(chat: ChatLangNorm) -> None:
    """Before anything is computed, with what to do; so are layers that its table lacks, and other intensities."""
    profile = NormProfile.calibrate(chat, PROMPTS[:2], show_progress=False)
    with pytest.raises(OptionError, match=r"does not have those of the layers 3\. Calibrate it again"):
        chat.invoke("Hi", profile=profile, layers=[3], intensity="token")
    profile.tokens = None
    with pytest.raises(OptionError, match=r"of the layers 9, 10\. .* `profile=None`"):
        chat.invoke("Hi", profile=profile, intensity="token")
    assert NormTrace.from_message(chat.invoke("Hi", profile=profile)).intensity is not None
    for refused in (lambda: ChatLangNorm(intensity="tokens"), lambda: chat.bind(intensity=None)):
        with pytest.raises(OptionError, match=r'`intensity=.* is not allowed. Use "layer" or "token"'):
            refused()


def test_without_a_profile_what_was_seen_makes_the_table(chat: ChatLangNorm, abacus_engine: Any) -> None:
    """From the same number of tokens on as percentiles; before, nothing is said."""
    chat = chat.model_copy(update={"norm_profile": None, "intensity": "token"})
    first = NormTrace.from_message(chat.invoke("What is 3 + 4?"))
    assert (first.intensity, first.low_steps, first.intensity_kind) == (None, None, "token")
    ids = [40 + i % 7 for i in range(WARM_UP)]
    norms = torch.linspace(30.0, 60.0, WARM_UP)[:, None, None].repeat(1, 1, 2)
    abacus_engine.statistics.update(norms, LAYERS, [WARM_UP], [ids])
    sums = abacus_engine.statistics.snapshot().tokens(LAYERS)
    assert sums.num_tokens == WARM_UP + len(first.token_norms or ())
    second = NormTrace.from_message(chat.invoke("What is 3 + 4?"))
    assert second.profile == "online"
    shares = shares_below(sums.table().relative(second.token_ids, second.token_norms)).mean()
    assert second.intensity == pytest.approx(shares, abs=1e-4)


def test_what_was_seen_of_tokens_does_not_change_in_a_snapshot() -> None:
    """Padding and sinks are not in it, nor what comes later; all selections of layers that have these count."""
    statistics = OnlineStatistics(12)
    norms = torch.ones(4, 2, 2)
    norms[1:, 1] = 1e9  # padding
    norms[3, 0] = 1e6  # a sink
    statistics.update(norms, (3, 4), [4, 1], [[7, 7, 8, 9, 1], [8]])
    statistics.update(norms[:, :1, :1], (4,), [4], [[7, 7, 8, 9]])
    statistics.update(norms, (3, 4), [4, 1])  # nobody knows the tokens
    with frozen_snapshots():
        snapshot = statistics.snapshot()
        statistics.update(torch.ones(5, 1, 2), (3, 4), [5], [[5] * 5])
        assert statistics.snapshot().tokens((3, 4)).num_tokens == snapshot.tokens((3, 4)).num_tokens == 4
    assert statistics.snapshot().tokens((3, 4)).num_tokens == 9
    assert snapshot.tokens((3, 4)).ids.tolist() == [7, 8]
    assert snapshot.tokens((3, 4)).counts.tolist() == [2, 2]
    assert snapshot.tokens((4,)).counts.tolist() == [4, 3]
    assert snapshot.tokens((3, 5)).num_tokens == 0


def test_the_norms_of_few_selections_of_layers_are_kept() -> None:
    """Of more than anyone uses, those that were recorded last."""
    statistics = OnlineStatistics(40)
    for layer in range(40):
        statistics.update(torch.ones(1, 1, 1), (layer,), [1], [[5]])
        statistics.update(torch.ones(1, 1, 1), (0,), [1], [[5]])
    seen = [statistics.snapshot().tokens((layer,)).num_tokens for layer in range(40)]
    assert seen == [41] + [0] * 24 + [1] * 15


@pytest.mark.filterwarnings("ignore:.*ended at `max_tokens`")  # short answers do
@pytest.mark.parametrize("prune", [None, "halving"])
def test_answers_are_ranked_by_norms_relative_to_their_tokens(chat: ChatLangNorm, prune: str | None) -> None:
    """Where no profile does, the candidates and what was seen before make the table, of running samples too."""
    sampling = {"temperature": 0.9, "seed": 3, "norms": "steps", "profile": None}
    selector = NormSelector(chat.bind(**sampling), n=5, score="token_norm", prune=prune)
    ranking = selector.invoke("What is 48 + 17 + 5?").response_metadata["langnorm"]["selection"]
    scores = [candidate["score"] for candidate in ranking["candidates"]]
    assert len(set(scores)) > 1
    assert None not in scores
    if prune:
        return
    prompt = [HumanMessage("What is 48 + 17 + 5?")]
    generations = chat.generate([prompt], **sampling | {"n": 5, "norms": "tokens"}).generations[0]
    replies = [generation.message for generation in generations]
    traces = [NormTrace.from_message(reply) for reply in replies]
    lists = lists_of(replies)
    of_tokens = [zip(trace.token_ids or (), trace.token_norms or (), strict=False) for trace in traces]
    table = np.array([np.mean([lists.relative(i, list(row)) for i, row in rows], axis=0) for rows in of_tokens])
    expected = ((table - table.mean(axis=0)) / table.std(axis=0)).mean(axis=1)
    assert scores == pytest.approx(expected.tolist(), abs=0.02)
    ranked = rank(replies, score="token_norm")
    assert NormTrace.from_message(ranked[0]).token_ids == traces[expected.argmax()].token_ids
