"""Loads the model of a command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langnorm.cli.options import parse_engine_options
from langnorm.cli.process import new_console
from langnorm.engines.registry import BUNDLED_MODEL, REMOTE_ENGINE
from langnorm.errors import OptionError

if TYPE_CHECKING:
    from langnorm.chat_models import ChatLangNorm


def load_chat(
    *,
    model: str,
    gguf: str | None,
    dtype: str | None,
    device: str | None,
    chat_template: Path | None,
    engine_option: list[str] | None = None,
    **settings: Any,
) -> ChatLangNorm:
    """Return the chat model with its weights loaded, so that what follows can be timed.

    Args:
        model: As `ChatLangNorm` takes it.
        gguf: The argument `gguf_file` of the loader; this and the next are left out where they are None.
        dtype: Its `dtype`.
        device: Its `device_map`.
        chat_template: The file of its `chat_template`.
        engine_option: The entries of `engine_kwargs`, each NAME=VALUE.
        **settings: Of the chat model, its engine among them.

    Raises:
        OptionError: The engine is a server, or an option is not allowed.
        ModelError: The model cannot be loaded.
    """
    if settings.get("engine") == REMOTE_ENGINE:
        msg = (
            "`--engine remote` asks a server, and the command line has no option for its address. Ask it from Python, "
            'by `ChatLangNorm(engine="remote", base_url=...)`.'
        )
        raise OptionError(msg)
    given = {"gguf_file": gguf, "dtype": dtype, "device_map": device, "chat_template": chat_template}
    settings["model_kwargs"] = {name: value for name, value in given.items() if value is not None}
    settings["engine_kwargs"] = parse_engine_options(engine_option)
    with _notice(f"Loading {model} ..."):
        from transformers.utils import logging

        from langnorm.chat_models import ChatLangNorm

        chat = ChatLangNorm(model=model, **settings)
        if model == BUNDLED_MODEL or not sys.stderr.isatty():
            hide_progress: Callable[[], None] = logging.disable_progress_bar
            hide_progress()
            chat.loaded_engine()
    # Others take longer and have transformers' progress bars, which the notice would be in the way of.
    chat.loaded_engine()
    return chat


@contextmanager
def working(text: str) -> Iterator[None]:
    """Show a line with the seconds on the terminal while something long runs, and nothing where there is none."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = new_console(is_stderr=True)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield
        return
    columns = (SpinnerColumn(), TextColumn(text), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task("")
        yield


@contextmanager
def _notice(text: str) -> Iterator[None]:
    """Show a line on the terminal while something runs, and nothing where there is none."""
    from rich.control import Control
    from rich.segment import ControlType

    console = new_console(is_stderr=True)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield
        return
    console.out(text, style="dim", end="")
    try:
        yield
    finally:
        console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))
