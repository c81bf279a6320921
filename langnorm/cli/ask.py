"""`langnorm ask`: one question, and the norms of its answer."""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from langnorm.cli import loading
from langnorm.cli.options import (
    ChatTemplateOption,
    DeviceOption,
    DtypeOption,
    EngineOption,
    GgufOption,
    LayersOption,
    MaxTokensOption,
    ModelOption,
    TemperatureOption,
)
from langnorm.cli.process import new_console
from langnorm.engines.registry import AUTO_ENGINE, BUNDLED_MODEL
from langnorm.errors import PromptError
from langnorm.norms.baseline import AUTO

_SAMPLING_TEMPERATURE = 0.7  # of Abacus where several answers are to differ; other models have one of their own
EXAMPLE = 'langnorm ask "Calculate 47 + 385."'


def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    *,
    model: ModelOption = BUNDLED_MODEL,
    gguf: GgufOption = None,
    engine: EngineOption = AUTO_ENGINE,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    chat_template: ChatTemplateOption = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A system message before the question.", show_default=False)
    ] = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Repeats an answer where T is above 0.", show_default=False)
    ] = None,
    no_think: Annotated[bool, typer.Option("--no-think", help="Answer without reasoning, if the model can.")] = False,
    layers: LayersOption = "late",
    profile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A profile of norms, as `langnorm calibrate` writes it.",
            show_default="norm_profile.json beside the weights, if there is one",
        ),
    ] = None,
    step_splitter: Annotated[
        str, typer.Option(metavar="STEP", help="What a step is: sentence, line or paragraph.")
    ] = "sentence",
    best_of: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Sample N answers, show the best, and say how many agree."),
    ] = None,
    is_json: Annotated[bool, typer.Option("--json", help="Print the message as JSON, and nothing else.")] = False,
) -> None:
    """Answer a question, and show the norms of each step of the reasoning.

    The norm of a step is the mean l2 norm of the residual stream over its tokens, after each of the recorded layers.
    """
    text = _read_question(question)
    messages = [("system", system)] if system else []
    messages.append(("human", text))
    if temperature is None and model == BUNDLED_MODEL:
        temperature = _SAMPLING_TEMPERATURE if best_of else 0
    from langnorm.norms.profile import NormProfile

    chat = loading.load_chat(
        model=model,
        gguf=gguf,
        engine=engine,
        dtype=dtype,
        device=device,
        chat_template=chat_template,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        enable_thinking=not no_think,
        layers=layers,
        norm_profile=NormProfile.load(profile) if profile else AUTO,
        step_splitter=step_splitter,
    )
    selection: dict[str, Any] = {"selection": {"n": best_of}} if best_of else {}
    from langnorm.viz.terminal import print_stream, print_summary

    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ of \d+ samples of a selection ended")  # what is printed says it too
        if is_json:
            _print_json(chat.invoke(messages, **selection).model_dump(mode="json"))
            return
        message = print_stream(new_console(), chat.stream(messages, **selection))
    print_summary(new_console(), message, time.perf_counter() - started)


def _read_question(question: str) -> str:
    text = sys.stdin.read() if question == "-" else question
    # A terminal that is not set to UTF-8 can give half characters, which no tokenizer takes.
    text = text.encode(errors="replace").decode().strip()
    if not text:
        msg = f"The question is empty. Give one, such as `{EXAMPLE}`, or pipe one in: `echo ... | langnorm ask -`."
        raise PromptError(msg)
    return text


def _print_json(fields: dict[str, Any]) -> None:
    if sys.stdout.isatty():
        new_console().print_json(data=fields, ensure_ascii=False)
    else:
        typer.echo(json.dumps(fields))
