"""A calibration without a model: what it counts, what it leaves out, what it says, and which checkpoints it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langnorm import ChatLangNorm, NormProfile
from langnorm.errors import OptionError
from langnorm.norms.calibration_prompts import read_prompts
from langnorm.norms.calibration_report import CalibrationReport, Tally
from langnorm.testing import ScriptedAnswer, ScriptedEngine

PROMPTS = ["What is 3 + 4?", "Hello!"]
SPOKEN = "One thing leads to another, said Anna, and so we came to talk of 17 ships that sailed in 1620."


def chat_of(*answers: str | ScriptedAnswer | Exception, **options: Any) -> ChatLangNorm:
    """Return a chat model that gives these answers in turn."""
    return ChatLangNorm(engine=ScriptedEngine(answers, is_repeated=True), **options)


def calibrate(chat: ChatLangNorm, **options: Any) -> NormProfile:
    """Return a profile of some tokens."""
    return NormProfile.calibrate(chat, PROMPTS, **({"num_tokens": 1000, "show_progress": False} | options))


def report_of(chat: ChatLangNorm, **options: Any) -> CalibrationReport:
    """Return what a calibration reports."""
    report = calibrate(chat, **options).report
    assert report is not None
    return report


def test_loops_are_left_out_and_reported() -> None:
    """The first round counts, the others do not, and a warning says so."""
    looping = ScriptedAnswer("banana, " * 60, norms=9.0)
    profile = calibrate(chat_of(SPOKEN, looping))
    assert profile.report is not None
    tally = profile.report.tally
    assert (tally.answers, tally.looping, tally.cut_off) == (2, 1, 0)
    assert tally.loop_tokens > 100
    assert profile.num_tokens < 80
    lines = profile.report.lines()
    assert f"Left out: {tally.loop_tokens:,} tokens of loops in 1 answers, and 0 attention sinks." in lines
    assert any(line.startswith("Warning: Much of what the model said were loops") for line in lines)


def test_a_profile_keeps_the_steps_of_the_answers() -> None:
    """By layer and by token, so that a step can be ranked; one that only goes round in a loop is none of them."""
    text = " ".join(f"Then {number} more came." for number in range(60))
    profile = calibrate(chat_of(text, "No, no, no. " * 60, temperature=0, max_tokens=900), num_tokens=900)
    assert profile.report is not None
    assert profile.report.tally.looping == 1
    assert 60 <= len(profile.steps["layer"]) < 70
    assert len(profile.steps["token"]) == len(profile.steps["layer"])
    for kind in ("layer", "token"):
        intensities = profile.step_intensities(kind, profile.steps[kind].layers)
        assert intensities is not None
        assert 0 <= intensities[0] <= intensities[-1] <= 1
        assert profile.step_intensities(kind, [99]) is None


def test_greedy_answers_end_it_early_and_it_says_why() -> None:
    """They would only come again."""
    report = report_of(chat_of(SPOKEN, temperature=0))
    assert report.ending.startswith("It ended early: all prompts are answered")
    assert report.ending in report.lines()


def test_sampled_answers_go_on_until_there_are_enough() -> None:
    """Round after round."""
    report = report_of(chat_of(SPOKEN, temperature=0.7), num_tokens=300)
    assert report.ending == "It ended with the batch that reached 300 tokens."
    assert report.tokens >= 300
    assert report.tally.answers > len(PROMPTS)


def test_answers_without_norms_do_not_go_on_forever() -> None:
    """An answer of one token has none."""
    with pytest.raises(
        OptionError, match="Not a single norm was recorded. It ended early: all prompts were asked again"
    ):
        calibrate(chat_of(ScriptedAnswer("", finish_reason="stop"), temperature=0.7))


def test_an_answer_has_a_limit_that_nobody_has_to_give() -> None:
    """1,024 tokens, or what the chat model says."""
    long = ScriptedAnswer([i * i % 911 for i in range(3000)])
    report = report_of(
        ChatLangNorm(engine=ScriptedEngine([long], is_repeated=True, context_length=None), temperature=0)
    )
    assert report.max_tokens == 1024
    assert report.tokens == 2 * 1023
    assert report.tally.cut_off == 2
    assert any("cut off at 1,024 tokens" in line for line in report.lines())
    assert any(line.startswith("Warning: Many answers were cut off") for line in report.lines())
    assert report_of(chat_of(long, temperature=0, max_tokens=50)).tokens == 2 * 49


def test_it_says_how_often_norms_are_high_and_how_far_thresholds_are_off() -> None:
    """By layer, and by comparing both halves of the answers."""
    rows = [[[1 + (i * k) % 97 / 97, 5.0, 3.0, 2.0] for i in range(400)] for k in (1, 5)]
    ids = [i % 900 for i in range(300)]
    chat = chat_of(*(ScriptedAnswer(ids, norms=of_one) for of_one in rows), temperature=0)
    report = report_of(chat)
    assert report.layers == (0, 1, 2, 3)
    assert report.trigger_rates == pytest.approx((0, 0, 0, 0))
    assert report.error == pytest.approx(0, abs=0.02)
    assert report.enough_tokens is not None
    assert any("Above the IQR threshold: 0.00% in layer 0" in line for line in report.lines())
    assert any("Thresholds are known to within about" in line for line in report.lines())
    assert any("Hardly a norm is above the IQR threshold in layers 0, 1, 2, 3" in line for line in report.lines())


def test_a_report_of_few_tokens_says_that_more_are_needed() -> None:
    """With how many."""
    report = CalibrationReport(500, Tally(3), None, "It ended.", (0,), (0.01,), error=0.02)
    assert report.enough_tokens == 2000
    assert report.warnings == ("Thresholds are not steady yet: about 2,000 tokens would give them to within 1 %.",)
    assert "cut off at the end of the context" in report.lines()[0]


def test_it_knows_what_is_usual_for_each_token() -> None:
    """In late layers and in those that the chat model records, without loops; the report says how much that is."""
    ids = [i % 5 + 300 for i in range(20)] + [i % 900 for i in range(100)]
    rows = [[1.0, 2.0, 5.0 + token_id % 5, 3.0] for token_id in ids]
    profile = calibrate(chat_of(ScriptedAnswer(ids, norms=rows), temperature=0, layers=[0]))
    assert profile.tokens is not None
    assert profile.tokens.layers == (0, 1, 2)
    assert profile.tokens.num_tokens == profile.num_tokens
    assert profile.report is not None
    assert profile.report.explained[2] == pytest.approx(1, abs=0.01)
    assert any("explains of the variance of log norms: 0% in layer 0, 0% in layer 1, 100% in" in line
               for line in profile.report.lines())  # fmt: skip
    looping = calibrate(chat_of(SPOKEN, ScriptedAnswer("banana, " * 60, norms=9.0)))
    assert looping.tokens is not None
    assert looping.tokens.num_tokens == looping.num_tokens < 80


def stopped(path: Path, **options: Any) -> None:
    """Leave the checkpoint of a calibration that was stopped after its first batch."""
    chat = chat_of(SPOKEN, KeyError("stopped"), temperature=0.7, max_batch_size=1, **options)
    with pytest.raises(KeyError):
        calibrate(chat, checkpoint=path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"max_tokens": 40}, "max tokens `1024` there, `40` here"),
        ({"temperature": 1.0}, "temperature `0.7` there, `1.0` here"),
        ({"top_p": 0.5}, "top p `1.0` there, `0.5` here"),
        ({"enable_thinking": False}, "enable thinking `True` there, `False` here"),
        ({"stop": ["x"]}, "stop `.*` there, `.*x.*` here"),
        ({"special_tokens": "allow"}, "special tokens `literal` there, `allow` here"),
        ({"max_batch_size": 3}, "batch size `1` there, `3` here"),
        ({"suppression": {"factor": 0.5}}, "interventions `{}` there, `.*suppression.*` here"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    """The error says what differs; `restart` begins anew."""
    path = tmp_path / "p.partial"
    stopped(path)
    kept = path.read_text()
    chat = chat_of(SPOKEN, **({"temperature": 0.7, "max_batch_size": 1} | changed))
    with pytest.raises(OptionError, match=rf"p\.partial` belongs to another calibration: {said}\. .*--restart"):
        calibrate(chat, checkpoint=path)
    assert path.read_text() == kept
    assert calibrate(chat, checkpoint=path, restart=True, num_tokens=100).num_tokens >= 100
    assert not path.exists()


def test_a_checkpoint_of_the_same_settings_goes_on(tmp_path: Path) -> None:
    """With all that was counted: the report is that of both parts."""
    path = tmp_path / "p.partial"
    stopped(path)
    chat = chat_of(SPOKEN, temperature=0.7, max_batch_size=1)
    resumed, whole = calibrate(chat, checkpoint=path), calibrate(chat)
    assert resumed.report == whole.report
    assert resumed == whole


@pytest.mark.parametrize(
    "text", ["", "{", "{}", "[" * 100_000, '{"langnorm_calibration": 1, "work": {"a": 1}}', "\udc80"]
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, text: str) -> None:
    """It is neither used nor lost."""
    path = tmp_path / "p.partial"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(OptionError, match=r"p\.partial` is not a checkpoint of a calibration .* Delete it"):
        calibrate(chat_of(SPOKEN), checkpoint=path)
    assert path.exists()


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
    ("content", "said"), [(b" \n", "has no prompts"), (None, "No such file"), (b"\xff\xfea", "not text in UTF-8")]
)
def test_files_without_prompts_are_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    """The error names the file."""
    if content is not None:
        (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(OptionError, match=rf"p\.txt` .*{said}"):
        read_prompts(tmp_path / "p.txt")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": 3}', "Line 2 of .* is not a prompt .at `prompt"),
        ('[{"role": "wizard", "content": "x"}]', "role"),
        ('[{"role": "user"}]', "content"),
        ('"\\ud83d"', "Invalid JSON"),
        ("[" * 9000, "recursion limit"),
    ],
)
def test_a_line_that_is_no_prompt_is_named(tmp_path: Path, line: str, said: str) -> None:
    """With its number, and what is wrong in it."""
    path = tmp_path / "p.jsonl"
    path.write_text(f'"sound"\n{line}\n')
    with pytest.raises(OptionError, match=said):
        read_prompts(path)


def test_a_prompt_may_have_any_character_but_a_line_feed(tmp_path: Path) -> None:
    """U+2028 ends no line of JSON, and a mark of the byte order is none of the text."""
    prompts = ["a\u2028b", [{"role": "user", "content": "c\x85d", "name": "e"}]]
    path = tmp_path / "p.jsonl"
    path.write_text("\ufeff" + "\n".join(json.dumps(prompt, ensure_ascii=False) for prompt in prompts))
    assert read_prompts(path) == prompts


def test_tokens_without_a_text_are_no_loop() -> None:
    """They are parts of characters: as many in a row as one likes, and a loop of such characters is one."""
    tokenizer = ScriptedEngine(["x"]).tokenizer
    lead = tokenizer("\u4f60", add_special_tokens=False)["input_ids"][0]
    assert report_of(chat_of(ScriptedAnswer([lead] * 40), temperature=0)).tally.looping == 0
    assert report_of(chat_of("\u4f60\u597d" * 40, temperature=0)).tally.looping == 2
