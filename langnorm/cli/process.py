"""How a command ends: with an error in one line, at Ctrl-C, or when the reader of its output leaves."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from langnorm.cli.lm_eval import NAME as LM_EVAL
from langnorm.cli.options import DEBUG
from langnorm.cli.wording import in_options
from langnorm.errors import LangNormError

if TYPE_CHECKING:
    from rich.console import Console

_EXIT_ERROR = 1
_EXIT_INTERRUPTED = 128 + 2  # what shells say of SIGINT
_EXIT_CLOSED_PIPE = 128 + 13  # and of SIGPIPE
_UNFORESEEN = "This was not foreseen: with `--debug` the same command shows where it arose."


class Commands(TyperGroup):
    """Runs a command and ends the process properly, whatever happens to it."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # what the locale cannot encode is no reason to fail
                stream.reconfigure(errors="replace")
        try:
            with _interruptible():
                return super().invoke(ctx)
        except LangNormError as error:
            if ctx.meta.get(DEBUG):
                raise
            # The harness has arguments of other names than ours.
            print_error(error, is_worded=ctx.invoked_subcommand == LM_EVAL, command=self._invoked(ctx))
            raise typer.Exit(_EXIT_ERROR) from error
        # What cannot be written ends the process without Python's teardown, for the reason in `_interruptible`.
        except BrokenPipeError:
            os._exit(_EXIT_CLOSED_PIPE)
        except OSError as error:
            if ctx.meta.get(DEBUG):
                raise
            print_error(error, command=self._invoked(ctx))
            os._exit(_EXIT_ERROR)
        except Exception as error:
            # typer's own ways to end a command, which have an exit code, are no errors of ours, and the harness, all of
            # whose arguments are its own, has no way to ask for a traceback.
            is_own_way = isinstance(error, typer.Abort) or hasattr(error, "exit_code")
            if is_own_way or ctx.meta.get(DEBUG) or ctx.invoked_subcommand == LM_EVAL:
                raise
            print_error(f"{type(error).__name__}: {error}. {_UNFORESEEN}", command=self._invoked(ctx))
            raise typer.Exit(_EXIT_ERROR) from error

    def _invoked(self, ctx: Any) -> Any:
        """Return the command that was asked for, if there is one."""
        return self.commands.get(ctx.invoked_subcommand)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process at once.

    Python's own way, an exception and then its teardown, is not taken: imports swallow the exception or turn it into
    another one, and the teardown crashes while another thread is inside a forward pass.
    """
    is_main = threading.current_thread() is threading.main_thread()
    # Where it is ignored, as in `langnorm ask ... &`, it stays so.
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def leave(*_: object) -> None:
        with suppress(OSError):  # it is closed
            # Not by `sys.stderr`, which may be in the middle of a write. What shows progress has hidden the cursor.
            os.write(2, b"\x1b[?25h\n" if os.isatty(2) else b"\n")
        os._exit(_EXIT_INTERRUPTED)

    signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def raising_interrupts() -> Iterator[None]:
    """Let Ctrl-C raise `KeyboardInterrupt` inside the `with` block, for what goes on after it."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if not is_main or before is signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def print_error(error: Exception | str, *, is_worded: bool = False, command: Any = None) -> None:
    """Print an error on standard error in one line.

    Args:
        error: The error, or its text.
        is_worded: Whether it is in the words of the command line already.
        command: That of typer whose options it may name; None for any.
    """
    from rich.text import Text

    from langnorm.viz.terminal import printable

    text = str(error) if is_worded else in_options(str(error), command and _options_of(command))
    message = " ".join(printable(text).split())
    new_console(is_stderr=True).print(Text.assemble(("Error: ", "bold red"), message), soft_wrap=True)


def _options_of(command: Any) -> set[str]:
    """Return the options of a command, and of those below it."""
    own = {name for parameter in command.params for name in parameter.opts}
    return own.union(*map(_options_of, getattr(command, "commands", {}).values()))


def new_console(*, is_stderr: bool = False) -> Console:
    """Return a console on standard output or standard error, for text that is no markup."""
    from rich.console import Console

    class PipeConsole(Console):
        """A console that leaves a closed pipe to `Commands`."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return PipeConsole(stderr=is_stderr, markup=False, emoji=False, highlight=False)
