"""A conversation on the terminal: questions, commands that begin with a slash, and answers that can be ended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

from langnorm.cli.process import print_error, raising_interrupts
from langnorm.errors import LangNormError, OptionError, closest
from langnorm.trace import KEY, NormTrace

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
    from rich.console import Console

_MOST_OF_STEP = 60  # characters of a step in the line below an answer

HELP = {
    "/help": "show these commands",
    "/steps": "a line for each step of the last answer",
    "/numbers": "the norms of these steps by layer",
    "/html FILE": "the last answer as a page for a browser",
    "/retry": "ask the last question again",
    "/system TEXT": "begin anew with this system message",
    "/clear": "begin anew",
    "/quit": "leave, as Ctrl-D does; Ctrl-C ends an answer",
}


class Conversation:
    """A conversation.

    Args:
        chat: The chat model, with the norms of tokens.
        console: Where answers are printed.
        system: The system message, if there is one.
    """

    def __init__(self, chat: Any, console: Console, system: str | None = None) -> None:
        self._chat = chat
        self._console = console
        self._system = system
        self._messages: list[BaseMessage] = []
        self._last: AIMessage | None = None  # whole, with the question and the seconds that it took
        self._question = ""
        self._seconds = 0.0
        self._commands: dict[str, Callable[[str], bool]] = {
            "/help": self._help,
            "/steps": lambda _: self._show(with_numbers=False),
            "/numbers": lambda _: self._show(with_numbers=True),
            "/html": self._save,
            "/retry": self._retry,
            "/system": self._begin_with,
            "/clear": lambda _: self._begin_with(self._system or ""),
            "/quit": lambda _: False,
        }

    @property
    def messages(self) -> list[BaseMessage]:
        """What the model is given: the system message and all questions and answers so far."""
        from langchain_core.messages import SystemMessage

        return [*([SystemMessage(self._system)] if self._system else []), *self._messages]

    def run(self, read: Callable[[], str]) -> None:
        """Answer what `read` returns, until it raises `EOFError` or the user leaves."""
        while True:
            try:
                line = read().encode(errors="replace").decode().strip()
            except KeyboardInterrupt:
                self._console.print("\nCtrl-D or /quit leaves.", style="dim")
                continue
            except EOFError:
                return
            try:
                if not self.take(line):
                    return
            except (LangNormError, TimeoutError) as error:
                print_error(error)

    def take(self, line: str) -> bool:
        """Do what a line asks for, and return whether the conversation goes on.

        Raises:
            LangNormError: It cannot be done.
        """
        if not line.startswith("/"):
            return not line or self._ask(line)
        name, _, rest = line.partition(" ")
        if name not in self._commands:
            msg = f"There is no command `{name}`.{closest(name, self._commands)} `/help` lists all."
            raise OptionError(msg)
        return self._commands[name](rest.strip())

    def _help(self, _: str) -> bool:
        for command, meaning in HELP.items():
            self._console.print(f"  {command.ljust(14)}{meaning}")
        return True

    def _begin_with(self, system: str) -> bool:
        self._system, self._messages, self._last = system or None, [], None
        self._console.print("A new conversation.", style="dim")
        return True

    def _retry(self, _: str) -> bool:
        question = next((str(m.content) for m in reversed(self._messages) if m.type == "human"), None)
        if question is None:
            msg = "There is no question yet. Ask one."
            raise OptionError(msg)
        before = list(self._messages)
        while self._messages.pop().type != "human":
            pass
        num_left = len(self._messages)
        try:
            return self._ask(question)
        finally:
            if len(self._messages) == num_left:  # there is no other answer
                self._messages = before

    def _ask(self, question: str) -> bool:
        from langchain_core.messages import AIMessage, HumanMessage

        from langnorm.viz.live import LiveAnswer

        gained: list[AIMessageChunk] = []
        started = time.perf_counter()
        try:
            answer = self._chat.stream([*self.messages, HumanMessage(question)])
            with raising_interrupts(), closing(answer) as chunks, LiveAnswer(self._console) as live:
                for chunk in chunks:
                    gained.append(chunk)
                    live.add(chunk)
        except KeyboardInterrupt:
            self._console.print("(ended)", style="dim")
        if not gained:
            return True  # as if it had not been asked
        message = reduce(add, gained)
        # What was read is part of the conversation, whole or not; the model is not shown its norms.
        self._messages += [HumanMessage(question), AIMessage(str(message.text), tool_calls=message.tool_calls)]
        if "steps" in message.response_metadata.get(KEY, {}):
            self._last, self._question, self._seconds = message, question, time.perf_counter() - started
            self._console.print(_in_one_line(message), style="dim", soft_wrap=True)
        return True

    def _answer(self) -> AIMessage:
        if self._last is None:
            msg = "There is no whole answer yet. Ask something."
            raise OptionError(msg)
        return self._last

    def _show(self, *, with_numbers: bool) -> bool:
        from langnorm.cli.wording import in_options
        from langnorm.viz.terminal import print_summary

        print_summary(self._console, self._answer(), self._seconds, with_numbers=with_numbers, wording=in_options)
        return True

    def _save(self, path: str) -> bool:
        from langnorm.viz.pages import heatmap

        answer = self._answer()
        if not path:
            msg = "There is no name of a file. Give one: `/html answer.html`."
            raise OptionError(msg)
        # Not by `Path`, which raises an error of its own where there is no such user.
        heatmap(answer, title=self._question).save(os.path.expanduser(path))  # noqa: PTH111
        self._console.print(f"{path} shows it in a browser.", style="dim", soft_wrap=True)
        return True


def _in_one_line(message: AIMessage) -> str:
    """Return what the norms of an answer say, in short."""
    from langnorm.viz.heat import step_heats
    from langnorm.viz.terminal import printable

    trace = NormTrace.from_message(message)
    parts = ["1 token" if trace.tokens == 1 else f"{trace.tokens} tokens"]
    if trace.intensity is not None:
        parts.append(f"intensity {trace.intensity:.2f}")
    heats = [-1.0 if heat is None else heat for heat in step_heats(trace)[0]]
    if len(heats) > 1 and max(heats) >= 0:
        hardest = heats.index(max(heats))
        text = " ".join(printable(trace.step_texts(message)[hardest]).split())
        shown = text if len(text) <= _MOST_OF_STEP else f"{text[: _MOST_OF_STEP - 1]}…"
        parts.append(f"hardest: step {hardest + 1} ({heats[hardest]:.2f}) {shown}")
    if message.response_metadata.get("finish_reason") == "length":
        parts.append("cut off at the token limit")
    return " · ".join(parts)
