"""A conversation on the terminal: questions, commands, errors, and answers that are ended."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from langnorm import ChatLangNorm
from langnorm.cli.conversation import HELP, Conversation
from langnorm.testing import ScriptedEngine


class Talk:
    """A conversation with a script, and what it prints."""

    def __init__(self, *answers: str, **settings) -> None:
        self.engine = ScriptedEngine(list(answers))
        self.chat = ChatLangNorm(engine=self.engine, norms="tokens", **settings)
        self.console = Console(file=io.StringIO(), width=80)
        self.conversation = Conversation(self.chat, self.console, "Be brief.")

    def run(self, *lines: str | type[BaseException] | Callable[[], str]) -> str:
        """Return what is printed after these lines; exceptions are raised in their place, as a terminal does."""
        waiting = iter([*lines, EOFError])

        def read() -> str:
            line = next(waiting)
            if isinstance(line, str):
                return line
            raise line

        self.conversation.run(read)
        return self.console.file.getvalue()  # type: ignore[attr-defined]


def test_answers_see_what_was_said_before() -> None:
    """The system message, and all questions and answers; below an answer stand its tokens and its hardest step."""
    talk = Talk("Four. It is even.", "Five.")
    printed = talk.run("What is 2 + 2?", "", "And one more?")
    assert "Four. It is even.\n" in printed
    assert "tokens · hardest: step " in printed
    first, second = talk.engine.prompts
    assert "Be brief." in first
    for text in ("Be brief.", "What is 2 + 2?", "Four. It is even.", "And one more?"):
        assert text in second


def test_a_conversation_has_texts_whatever_the_form_of_answers() -> None:
    """With `output_version="v1"` what is thought is a block of the content, and no part of what was said."""
    talk = Talk("<think>\nHm.\n</think>\n\nFour.", "Five.", output_version="v1")
    talk.run("What is 2 + 2?", "And one more?")
    assert [message.content for message in talk.conversation.messages[2::2]] == ["Four.", "Five."]


def test_commands_show_and_save_the_last_answer(tmp_path) -> None:
    """Its steps as lines or numbers, and a page, whose title is the question."""
    path = tmp_path / "answer.html"
    printed = Talk("Four. It is even.").run("What is 2 + 2?", "/steps", "/numbers", f"/html {path}", "/help", "/quit")
    assert "step  rank" in printed
    assert "layer 2" in printed
    assert "<title>What is 2 + 2?</title>" in path.read_text("utf-8")
    assert f"{path} shows it in a browser." in printed.replace("\n", "")
    assert all(command in printed for command in HELP)


def test_a_page_has_the_question_of_its_answer(monkeypatch, tmp_path) -> None:
    """Where a later answer was ended, which has no page."""
    talk, stream = Talk("Four.", "One two three four."), ChatLangNorm.stream

    def broken(self, *args, **kwargs):
        yield next(stream(self, *args, **kwargs))
        raise KeyboardInterrupt

    talk.run("What is 2 + 2?")
    monkeypatch.setattr(ChatLangNorm, "stream", broken)
    talk.run("Can you count?", f"/html {tmp_path / 'answer.html'}")
    assert "<title>What is 2 + 2?</title>" in (tmp_path / "answer.html").read_text("utf-8")


def test_the_conversation_begins_anew() -> None:
    """By `/clear` with the same system message, by `/system` with another; `/retry` asks once more."""
    talk = Talk("One.", "Two.", "Three.", "Four.")
    talk.run("First?", "/retry", "/clear", "Second?", "/system Be long.", "Third?")
    prompts = talk.engine.prompts
    assert prompts[0] == prompts[1]
    assert "First?" not in prompts[2]
    assert "Be brief." in prompts[2]
    assert "Be long." in prompts[3]
    assert "Be brief." not in prompts[3]


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
def test_what_is_asked_again_in_vain_stays_as_it_was(monkeypatch, error) -> None:
    """The question and its first answer; it can be asked again after that."""
    talk, stream = Talk("One.", "Two.", "Three."), ChatLangNorm.stream

    def broken(*_args, **_kwargs):
        raise error

    talk.run("First?", "Second?")
    before = talk.conversation.messages
    monkeypatch.setattr(ChatLangNorm, "stream", broken)
    talk.run("/retry")
    assert talk.conversation.messages == before
    monkeypatch.setattr(ChatLangNorm, "stream", stream)
    talk.run("/retry")
    assert [str(message.content) for message in talk.conversation.messages[1:]] == [
        "First?",
        "One.",
        "Second?",
        "Three.",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/stpes", "There is no command `/stpes`. Did you mean `/steps`?"),
        ("/steps", "There is no whole answer yet."),
        ("/html x.html", "There is no whole answer yet."),
        ("/retry", "There is no question yet."),
        ("47 " * 3000, "leaves no room for an answer"),
    ],
)
def test_errors_are_a_line_and_no_end(capsys, line, message) -> None:
    """The conversation goes on as if nothing had been asked."""
    talk = Talk("Four.")
    printed = talk.run(line, "What is 2 + 2?")
    assert message in " ".join(capsys.readouterr().err.split())
    assert "Four." in printed
    assert len(talk.conversation.messages) == 3


def test_a_page_needs_a_name(capsys) -> None:
    """Which the error shows; one that no file can have is an error too, and no end."""
    printed = Talk("Four.").run("What is 2 + 2?", "/html", "/html ~no-such-user/x.html", "/steps")
    told = capsys.readouterr().err
    assert "`/html answer.html`" in told
    assert "`~no-such-user/x.html` cannot be written" in told
    assert "step  rank" in printed


def test_ctrl_c_ends_an_answer_and_not_the_program(monkeypatch) -> None:
    """What was said until then stays in the conversation; without a word, the question was not asked."""
    talk = Talk("One two three four five six.", "Seven.", "Eight.")
    stream, shown = ChatLangNorm.stream, iter([3, 0, 99])

    def broken(self, *args, **kwargs):
        chunks = stream(self, *args, **kwargs)
        for _ in range(next(shown)):
            try:
                yield next(chunks)
            except StopIteration:
                return
        raise KeyboardInterrupt

    monkeypatch.setattr(ChatLangNorm, "stream", broken)
    printed = talk.run("First?", "Second?", KeyboardInterrupt, "Third?")
    assert printed.count("(ended)") == 2
    assert "Ctrl-D or /quit leaves." in printed
    assert "Eight." in printed or "Seven." in printed
    said = [str(message.content) for message in talk.conversation.messages[1:]]
    assert said[0] == "First?"
    assert "One two three four five six.".startswith(said[1])
    assert said[2] == "Third?"
