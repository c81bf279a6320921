"""Calibration asks the model, counts its tokens, and goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from langnorm import ChatLangNorm, NormProfile, NormTrace
from langnorm.errors import OptionError

PROMPTS = ["What is 3 + 4?", "Hello!", [("human", "12 * 3")], "Take 5. Add 6.", "What is 90 - 8?"]


@pytest.fixture
def chat(abacus_engine) -> ChatLangNorm:
    """Return the bundled model, with short answers and small batches."""
    return ChatLangNorm(engine=abacus_engine, temperature=0.7, max_tokens=10, max_batch_size=2)


def calibrate(chat: ChatLangNorm, prompts: list[Any] = PROMPTS, **options: Any) -> NormProfile:
    """Return a profile of some tokens."""
    return NormProfile.calibrate(chat, prompts, **({"num_tokens": 60, "show_progress": False} | options))


def test_a_profile_has_all_layers_of_its_model(chat: ChatLangNorm) -> None:
    """And at least as many tokens as were asked for, but not a batch more."""
    profile = calibrate(chat)
    profile.check(chat.loaded_engine().identity)
    assert profile.layers == tuple(range(12))
    assert 60 <= profile.num_tokens <= 60 + 2 * 10


def test_a_profile_is_of_the_answers(chat: ChatLangNorm) -> None:
    """Greedy answers are asked for once, and all of their norms are in."""
    chat = ChatLangNorm(engine=chat.engine, temperature=0, max_tokens=10)
    profile = calibrate(chat, num_tokens=1000)
    rows = [NormTrace.from_message(r).token_norms for r in chat.batch(PROMPTS, layers=[7], norms="tokens")]
    norms = sorted(row[0] for of_one in rows for row in of_one or ())
    assert profile.num_tokens == len(norms)
    assert profile.sketch.quantile(0.5)[7].item() == pytest.approx(norms[(len(norms) - 1) // 2], rel=0.003)


def test_it_goes_on_where_it_stopped(chat: ChatLangNorm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption changes nothing, and the checkpoint is gone at the end."""
    checkpoint = tmp_path / "p.partial"
    whole = calibrate(chat)
    real, calls = ChatLangNorm.batch, []

    def stop(self: ChatLangNorm, *arguments: Any, **options: Any) -> Any:
        calls.append(options)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    monkeypatch.setattr(ChatLangNorm, "batch", stop)
    with pytest.raises(KeyboardInterrupt):
        calibrate(chat, checkpoint=checkpoint)
    assert checkpoint.exists()
    for other in ({"prompts": [*PROMPTS[:-1], "Bye!"]}, {"chat": chat.model_copy(update={"max_batch_size": 3})}):
        with pytest.raises(OptionError, match="belongs to another calibration: (prompts|batch size) `"):
            calibrate(**({"chat": chat, "checkpoint": checkpoint} | other))
    resumed = calibrate(chat, checkpoint=checkpoint)
    assert resumed.num_tokens == whole.num_tokens
    for q in (0.0, 0.5, 1.0):  # threads order the rows of a batch, which changes the last bits
        assert resumed.sketch.quantile(q).tolist() == pytest.approx(whole.sketch.quantile(q).tolist(), rel=0.003)
    assert not checkpoint.exists()


@pytest.mark.parametrize("prompts", [[], "one text"])
def test_without_prompts_nothing_starts(chat: ChatLangNorm, prompts: Any) -> None:
    """A text is not a list of texts."""
    with pytest.raises(OptionError, match="no prompts"):
        calibrate(chat, prompts)
