"""What an engine has seen: every token of every sequence, and snapshots that do not change."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest
import torch

from langnorm import ChatLangNorm, NormTrace
from langnorm.norms.frozen import frozen_snapshots
from langnorm.norms.online import WARM_UP, OnlineStatistics
from langnorm.norms.profile import NormProfile
from langnorm.norms.sketch import QuantileSketch
from langnorm.norms.thresholds import ReferenceThreshold

SHORT = {"temperature": 0, "max_tokens": 20, "profile": None, "layers": [9, 10]}


def filled(num_rows: int = WARM_UP) -> OnlineStatistics:
    """Return statistics of this many tokens of one sequence."""
    statistics = OnlineStatistics(12)
    statistics.update(torch.full((num_rows, 1, 2), 7.0), (3, 4), [num_rows])
    return statistics


def test_nothing_is_said_before_the_warm_up() -> None:
    """Nor of layers that were never recorded."""
    assert filled(WARM_UP - 1).snapshot().select((3, 4)) is None
    assert filled().snapshot().select((3, 4)) is not None
    assert filled().snapshot().select((3, 5)) is None


def test_padding_and_sinks_are_left_out() -> None:
    """A sequence counts up to its own length, without its attention sinks."""
    statistics = OnlineStatistics(2)
    norms = torch.ones(600, 2, 1)
    norms[300:, 1] = 1e4  # padding
    norms[5, 0] = 1e4  # a sink
    statistics.update(norms, (1,), [600, 300])
    snapshot = statistics.snapshot().select((1,))
    assert snapshot is not None
    assert snapshot.num_samples == 899
    assert snapshot.quantile(1.0).tolist() == [1.0]


def test_a_snapshot_does_not_change() -> None:
    """What runs later is not in it."""
    statistics = filled()
    snapshot = statistics.snapshot().select((3, 4))
    assert snapshot is not None
    statistics.update(torch.full((100, 1, 2), 9.0), (3, 4), [100])
    assert snapshot.num_samples == WARM_UP
    assert snapshot.quantile(1.0).tolist() == [7.0, 7.0]


def test_requests_of_a_batch_see_the_same() -> None:
    """In all threads and tasks that start inside, and nowhere else."""
    statistics, other = filled(), filled()

    def seen() -> int:
        snapshot = statistics.snapshot().select((3, 4))
        assert snapshot is not None
        return snapshot.num_samples

    async def seen_by_a_task() -> int:
        return await asyncio.to_thread(seen)

    with ThreadPoolExecutor() as pool, frozen_snapshots():
        assert seen() == WARM_UP
        statistics.update(torch.full((100, 1, 2), 9.0), (3, 4), [100])
        other.update(torch.full((100, 1, 2), 9.0), (3, 4), [100])
        assert seen() == pool.submit(copy_context().run, seen).result() == WARM_UP
        assert asyncio.run(seen_by_a_task()) == WARM_UP
        assert pool.submit(seen).result() == WARM_UP + 100
        assert other.snapshot().select((3, 4)).num_samples == WARM_UP + 100  # type: ignore[union-attr]
    assert seen() == WARM_UP + 100


@pytest.fixture(autouse=True)
def _fresh_statistics(abacus_engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abacus_engine, "statistics", OnlineStatistics(abacus_engine.num_layers))


def test_every_token_of_every_sequence_is_sampled(abacus_engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of unequal answers counts all of their rows, and a silent neighbour none."""
    monkeypatch.setattr("langnorm.norms.online.WARM_UP", 1)
    chat = ChatLangNorm(engine=abacus_engine, **SHORT)
    replies = chat.batch(["What is 3 + 4?", "Hello!", "12 * 3"], norms="tokens")
    chat.invoke("Hello!", norms="off")
    chat.invoke("Hello!", suppression={"threshold": 1.0})  # its norms are not the model's own
    rows = [NormTrace.from_message(reply).token_norms for reply in replies]
    snapshot = abacus_engine.statistics.snapshot().select((9, 10))
    assert snapshot.num_samples == sum(map(len, rows))
    assert snapshot.quantile(1.0).tolist() == pytest.approx([max(r[i] for row in rows for r in row) for i in (0, 1)])


def test_intensity_is_there_once_enough_was_seen(abacus_engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a profile, a model is compared with itself so far."""
    monkeypatch.setattr("langnorm.norms.online.WARM_UP", 3)
    chat = ChatLangNorm(engine=abacus_engine, **SHORT)
    first, second = (NormTrace.from_message(chat.invoke("What is 3 + 4?")) for _ in range(2))
    assert (first.intensity, first.profile, first.thresholds) == (None, None, None)
    assert second.intensity == pytest.approx(0.5, abs=0.1)
    assert second.profile == "online"


def test_low_is_there_once_enough_steps_were_seen(abacus_engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a profile, a step ranks among those that this process has kept, of the model's own accord."""
    monkeypatch.setattr("langnorm.norms.online.WARM_UP", 3)
    monkeypatch.setattr("langnorm.norms.online.FEWEST_STEPS", 4)
    chat = ChatLangNorm(engine=abacus_engine, **(SHORT | {"max_tokens": 40}))
    chat.invoke("What is 3 + 4?")
    seen: list[float] = []
    while len(seen) < 4:
        trace = NormTrace.from_message(chat.invoke("What is 3 + 4?"))
        assert (trace.low_steps, trace.steps[0].low) == (None, None)
        seen += [step.intensity for step in trace.steps if step.intensity is not None]
    chat.invoke("What is 3 + 4?", suppression={"threshold": 1.0})
    chat.invoke("What is 3 + 4?", norms="off")
    trace = NormTrace.from_message(chat.invoke("What is 3 + 4?", low_below=0.5))
    expected = []
    for step in trace.steps:
        as_low = sum(other < step.intensity for other in seen) + sum(other == step.intensity for other in seen) / 2
        expected.append((as_low + 0.5) / (len(seen) + 1) < 0.5)
    assert [step.low for step in trace.steps] == expected
    assert NormTrace.from_message(chat.invoke("What is 3 + 4?", intensity="token")).low_steps is None


def test_steps_that_a_profile_has_measured_are_not_compared_with_others(
    abacus_engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are high or low by another measure."""
    monkeypatch.setattr("langnorm.norms.online.WARM_UP", 3)
    monkeypatch.setattr("langnorm.norms.online.FEWEST_STEPS", 1)
    sketch = QuantileSketch(range(abacus_engine.num_layers))
    sketch.update(torch.full((8, abacus_engine.num_layers), 20.0))  # below all norms of this model
    low = NormProfile("low", abacus_engine.identity, sketch)
    chat = ChatLangNorm(engine=abacus_engine, **SHORT)
    assert NormTrace.from_message(chat.invoke("What is 3 + 4?", profile=low)).intensity == 1.0
    trace = NormTrace.from_message(chat.invoke("What is 3 + 4?"))
    assert (trace.profile, trace.low_steps) == ("online", None)


def test_the_place_in_a_batch_does_not_matter(abacus_engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of two run one after the other; all of their requests compare with what was there before."""
    monkeypatch.setattr("langnorm.norms.online.WARM_UP", 3)
    chat = ChatLangNorm(engine=abacus_engine, max_batch_size=2, **SHORT)
    chat.invoke("Tell me a joke.")
    for replies in (chat.batch(["What is 3 + 4?"] * 6), asyncio.run(chat.abatch(["What is 3 + 4?"] * 6))):
        traces = [NormTrace.from_message(reply) for reply in replies]
        assert len({trace.intensity for trace in traces}) == 1
        assert traces[0].intensity is not None


def test_the_papers_rule_learns_from_answers_that_are_kept(abacus_engine) -> None:
    """It goes on from request to request; candidates that a selection looks at teach it nothing."""
    rule = ReferenceThreshold(warm_up=10)
    chat = ChatLangNorm(engine=abacus_engine, threshold=rule, norms="tokens", **(SHORT | {"temperature": 0.7}))

    def num_learnt() -> int:
        return abacus_engine.statistics.snapshot().estimator(rule, (9, 10)).num_samples

    reply = chat.invoke("What is 3 + 4?", seed=1)
    assert num_learnt() == len(NormTrace.from_message(reply).token_norms or ())
    before = num_learnt()
    chosen = chat.invoke("What is 3 + 4?", seed=2, selection={"n": 4, "score": "rate"})
    assert num_learnt() == before + len(NormTrace.from_message(chosen).token_norms or ())


def test_a_snapshot_of_the_papers_rule_does_not_change() -> None:
    """What other requests teach it meanwhile is not in it, inside of a batch neither."""
    rule, statistics = ReferenceThreshold(warm_up=2), OnlineStatistics(4)
    snapshot = statistics.snapshot()
    with frozen_snapshots():
        assert statistics.snapshot() is statistics.snapshot()
        statistics.learn(rule, (1,), [[float(i)] for i in range(9)])
        assert statistics.snapshot().estimator(rule, (1,)).num_samples == 0
    assert snapshot.estimator(rule, (1,)).num_samples == 0
    assert statistics.snapshot().estimator(rule, (1,)).num_samples == 9


def test_the_states_of_few_rules_are_kept() -> None:
    """Of more rules than anyone uses, those that have not learned for longest begin anew."""
    statistics = OnlineStatistics(4)
    rules = [ReferenceThreshold(k=float(k)) for k in range(100)]

    for rule in rules:
        statistics.learn(rules[0], (1,), [[1.0]])
        statistics.learn(rule, (1,), [[1.0]])

    seen = [statistics.snapshot().estimator(rule, (1,)).num_samples for rule in rules]
    assert seen == [101] + [0] * 84 + [1] * 15
