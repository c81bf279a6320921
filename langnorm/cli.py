"""The command line: `langnorm ask "Calculate 47 + 385."`.

A new command is a function with `@app.command()`. It raises `LangNormError` for what the user can mend; what becomes
of that, of Ctrl-C and of a closed pipe is the same for all commands (`_Commands`). Whatever takes long to import
(torch, transformers, langchain, rich) is imported when a command runs, so that help is quick.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from langnorm import __version__
from langnorm.engines.registry import BUNDLED_MODEL
from langnorm.errors import LangNormError, PromptError, closest
from langnorm.files import check_folder

if TYPE_CHECKING:
    from rich.console import Console

    from langnorm.chat_models import ChatLangNorm

_EXIT_ERROR = 1
_EXIT_INTERRUPTED = 128 + 2  # what shells say of SIGINT
_EXIT_CLOSED_PIPE = 128 + 13  # and of SIGPIPE

_EXAMPLE = 'langnorm ask "Calculate 47 + 385."'


class _Commands(TyperGroup):
    """Runs a command and ends the process properly, whatever happens to it."""

    def invoke(self, ctx: Any) -> Any:
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # what the locale cannot encode is no reason to fail
                stream.reconfigure(errors="replace")
        try:
            with _interruptible():
                return super().invoke(ctx)
        except LangNormError as error:
            _print_error(error)
            raise typer.Exit(_EXIT_ERROR) from error
        # What cannot be written ends the process without Python's teardown, for the reason in `_interruptible`.
        except BrokenPipeError:
            os._exit(_EXIT_CLOSED_PIPE)
        except OSError as error:
            _print_error(error)
            os._exit(_EXIT_ERROR)


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
            os.write(2, b"\n")  # not `sys.stderr`, which may be in the middle of a write
        os._exit(_EXIT_INTERRUPTED)

    signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _print_error(error: Exception) -> None:
    from rich.text import Text

    from langnorm.viz.terminal import printable

    message = " ".join(printable(str(error)).split())
    _console(is_stderr=True).print(Text.assemble(("Error: ", "bold red"), message), soft_wrap=True)


def _console(*, is_stderr: bool = False) -> Console:
    from rich.console import Console

    class PipeConsole(Console):
        """A console that leaves a closed pipe to `_Commands`."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return PipeConsole(stderr=is_stderr, markup=False, emoji=False, highlight=False)


app = typer.Typer(
    name="langnorm",
    cls=_Commands,
    help="Run a local language model and see how hard it is thinking.",
    epilog=f"Try:  {_EXAMPLE}",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_wanted: bool) -> None:  # noqa: FBT001 (typer calls it so)
    if is_wanted:
        typer.echo(f"langnorm {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 (its callback does it all)
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _parse_layers(value: str) -> str | list[int]:
    names = ("late", "all")
    if value in names:
        return value
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        msg = f"`{value}` is not a selection of layers. Use late, all, or indices such as 9,10."
        raise typer.BadParameter(msg + closest(value, names)) from None


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    *,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="A folder, a name on the Hugging Face hub, or abacus.")
    ] = BUNDLED_MODEL,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A system message before the question.", show_default=False)
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Most tokens to generate.", show_default="what the context holds"),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="T", help="0 is greedy.", show_default="0 for abacus, the model's own for any other"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Repeats an answer where T is above 0.", show_default=False)
    ] = None,
    no_think: Annotated[bool, typer.Option("--no-think", help="Answer without reasoning, if the model can.")] = False,
    layers: Annotated[
        Any,
        typer.Option(parser=_parse_layers, metavar="LAYERS", help="Layers to read: late, all, or such as 3,4,5."),
    ] = "late",
    is_json: Annotated[bool, typer.Option("--json", help="Print the message as JSON, and nothing else.")] = False,
) -> None:
    """Answer a question, and show the norms of each step of the reasoning.

    The norm of a step is the mean l2 norm of the residual stream over its tokens, after each of the recorded layers.
    """
    text = _read_question(question)
    messages = [("system", system)] if system else []
    messages.append(("human", text))
    if temperature is None and model == BUNDLED_MODEL:
        temperature = 0
    chat = _load(
        model=model,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        enable_thinking=not no_think,
        layers=layers,
    )
    if is_json:
        _print_json(chat.invoke(messages).model_dump(mode="json"))
        return
    from langnorm.viz.terminal import print_stream, print_summary

    started = time.perf_counter()
    message = print_stream(_console(), chat.stream(messages))
    print_summary(_console(), message, time.perf_counter() - started)


@app.command()
def calibrate(
    *,
    prompts: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="A text file with one prompt a line, or JSON lines with a prompt or messages each.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the profile is written.", show_default=False)],
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="A folder, a name on the Hugging Face hub, or abacus.")
    ] = BUNDLED_MODEL,
    num_tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="Tokens to record. The report says how many would be enough.")
    ] = 20_000,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Most tokens of an answer.", show_default="1024, or the model's own limit"
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Prompts that run together.")] = 16,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew, whatever a run that was stopped has left.")
    ] = False,
) -> None:
    """Fit a profile of norms to a model, so that its intensities mean something.

    A run that is stopped goes on when the same command is given again; with other settings it has to --restart. Loops
    and attention sinks are left out, and a report says how good the profile is. The profile is then the option
    `profile` of ChatLangNorm; as norm_profile.json in the model's own folder it is found by itself.
    """
    from langnorm.norms.calibration_prompts import read_prompts
    from langnorm.norms.profile import NormProfile

    asked = read_prompts(prompts)
    check_folder(out)
    chat = _load(model=model, max_tokens=max_tokens, max_batch_size=batch_size)
    # Beside the profile, so that a second command in another folder has its own.
    checkpoint = out.with_name(f"{out.name}.partial")
    profile = NormProfile.calibrate(chat, asked, num_tokens=num_tokens, checkpoint=checkpoint, restart=restart)
    profile.save(out)
    typer.echo(f"{out}: {profile.num_tokens} tokens, {len(profile.layers)} layers of {profile.name}")
    typer.echo("\n".join(profile.report.lines() if profile.report else ()))


def _read_question(question: str) -> str:
    text = sys.stdin.read() if question == "-" else question
    # A terminal that is not set to UTF-8 can give half characters, which no tokenizer takes.
    text = text.encode(errors="replace").decode().strip()
    if not text:
        msg = f"The question is empty. Give one, such as `{_EXAMPLE}`, or pipe one in: `echo ... | langnorm ask -`."
        raise PromptError(msg)
    return text


def _load(*, model: str, **settings: Any) -> ChatLangNorm:
    """Return the chat model with its weights loaded, so that what follows can be timed."""
    with _notice(f"Loading {model} ..."):
        from transformers.utils import logging

        from langnorm.chat_models import ChatLangNorm

        chat = ChatLangNorm(model=model, **settings)
        if model == BUNDLED_MODEL:
            hide_progress: Callable[[], None] = logging.disable_progress_bar
            hide_progress()
            chat.loaded_engine()
    # Others take longer and have transformers' progress bars, which the notice would be in the way of.
    chat.loaded_engine()
    return chat


@contextmanager
def _notice(text: str) -> Iterator[None]:
    """Show a line on the terminal while something runs, and nothing where there is none."""
    from rich.control import Control
    from rich.segment import ControlType

    console = _console(is_stderr=True)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield
        return
    console.out(text, style="dim", end="")
    try:
        yield
    finally:
        console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))


def _print_json(fields: dict[str, Any]) -> None:
    if sys.stdout.isatty():
        _console().print_json(data=fields, ensure_ascii=False)
    else:
        typer.echo(json.dumps(fields))
