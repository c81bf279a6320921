"""Calibration asks the model, counts its tokens, and goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langnorm import ChatLangNorm, NormProfile, NormTrace
from langnorm.errors import OptionError
from langnorm.norms.calibration import read_prompts

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
    assert profile.sketch.quantile(0.5)[7].item() == pytest.approx(norms[(len(norms) - 1) // 2], rel=0.011)


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
        with pytest.raises(OptionError, match="belongs to another calibration"):
            calibrate(**({"chat": chat, "checkpoint": checkpoint} | other))
    resumed = calibrate(chat, checkpoint=checkpoint)
    assert resumed.num_tokens == whole.num_tokens
    for q in (0.0, 0.5, 1.0):  # threads order the rows of a batch, which changes the last bits
        assert resumed.sketch.quantile(q).tolist() == pytest.approx(whole.sketch.quantile(q).tolist(), rel=0.021)
    assert not checkpoint.exists()


def test_a_checkpoint_of_something_else_is_refused(chat: ChatLangNorm, tmp_path: Path) -> None:
    """It is neither used nor lost."""
    (tmp_path / "p.partial").write_text("{}")
    with pytest.raises(OptionError, match=r"p\.partial` belongs to another calibration"):
        calibrate(chat, checkpoint=tmp_path / "p.partial")
    assert (tmp_path / "p.partial").read_text() == "{}"


@pytest.mark.parametrize("prompts", [[], "one text"])
def test_without_prompts_nothing_starts(chat: ChatLangNorm, prompts: Any) -> None:
    """A text is not a list of texts."""
    with pytest.raises(OptionError, match="no prompts"):
        calibrate(chat, prompts)


def test_prompts_of_a_text_file(tmp_path: Path) -> None:
    """One a line, blank lines left out."""
    (tmp_path / "p.txt").write_text("What is 3 + 4?\n\n  Hello! \n")
    assert read_prompts(tmp_path / "p.txt") == ["What is 3 + 4?", "Hello!"]


def test_prompts_of_lines_of_json(tmp_path: Path) -> None:
    """Texts and messages."""
    messages = [{"role": "user", "content": "Hi"}]
    values = ["a", messages, {"prompt": "b"}, {"messages": messages}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, values)))
    assert read_prompts(tmp_path / "p.jsonl") == ["a", messages, "b", messages]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.txt", " \n", "has no prompts"),
        ("p.jsonl", '"a"\n{', "Line 2 of .* is not JSON"),
        ("p.jsonl", '{"text": "a"}', "Line 1 of .* has no prompt"),
        ("p.txt", None, "cannot be read"),
    ],
)
def test_prompts_that_cannot_be_read_are_refused(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    """The error names the file and the line."""
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(OptionError, match=said):
        read_prompts(tmp_path / name)
