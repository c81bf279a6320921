"""`langnorm ask`: one question, and how hard each step of its answer was."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langnorm.cli import loading
from langnorm.cli.asking import messages_of, profile_of, read_question, selection_of, temperature_of
from langnorm.cli.options import (
    ChatTemplateOption,
    CombineOption,
    DebugOption,
    DeviceOption,
    DtypeOption,
    EngineKwargsOption,
    EngineOption,
    GgufOption,
    IntensityOption,
    LayersOption,
    MaxTokensOption,
    ModelOption,
    NoThinkOption,
    ProfileOption,
    QuestionArgument,
    ScoreOption,
    SeedOption,
    SelectOption,
    StepSplitterOption,
    StopOption,
    SystemOption,
    TemperatureOption,
    VoteOption,
)
from langnorm.cli.process import new_console
from langnorm.cli.wording import in_options
from langnorm.engines.registry import AUTO_ENGINE, BUNDLED_MODEL

if TYPE_CHECKING:
    from langchain_core.messages import AIMessageChunk

EXAMPLE = 'langnorm ask "Calculate 47 + 385."'
EXAMPLES = f"""Examples:

{EXAMPLE}

langnorm ask --model some.gguf --verbose "Why is the sky blue?"

langnorm ask --select 8 --vote majority "What is 12 * 14 - 39?"

echo "What is 3 + 4?" | langnorm ask - --json"""


def ask(
    question: QuestionArgument,
    *,
    model: ModelOption = BUNDLED_MODEL,
    gguf: GgufOption = None,
    engine: EngineOption = AUTO_ENGINE,
    engine_option: EngineKwargsOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    chat_template: ChatTemplateOption = None,
    system: SystemOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
    seed: SeedOption = None,
    no_think: NoThinkOption = False,
    layers: LayersOption = "late",
    profile: ProfileOption = None,
    intensity: IntensityOption = "layer",
    step_splitter: StepSplitterOption = "sentence",
    select: SelectOption = None,
    score: ScoreOption = None,
    combine: CombineOption = None,
    vote: VoteOption = None,
    stop: StopOption = None,
    is_verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the norms of each step by layer.")] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print the message as JSON, and nothing else.")] = False,
    debug: DebugOption = False,  # noqa: ARG001 (its callback does it all)
) -> None:
    """Answer a question, and show how hard each step was: a bar for its norms, its intensity, its text.

    The norm of a step is the mean l2 norm of the residual stream over its tokens, after each of the recorded layers.
    """
    messages = messages_of(system, read_question(question, EXAMPLE))
    selection = selection_of(select, score=score, combine=combine, vote=vote, stop=stop)
    chat = loading.load_chat(
        model=model,
        gguf=gguf,
        engine=engine,
        engine_option=engine_option,
        dtype=dtype,
        device=device,
        chat_template=chat_template,
        max_tokens=max_tokens,
        temperature=temperature_of(temperature, model, is_sampling=selection is not None),
        seed=seed,
        enable_thinking=not no_think,
        layers=layers,
        norm_profile=profile_of(profile),
        intensity=intensity,
        step_splitter=step_splitter,
    )
    settings: dict[str, Any] = {"selection": selection} if selection else {}
    from langnorm.viz.terminal import print_stream, print_summary

    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ of \d+ samples of a selection ended")  # what is printed says it too
        if is_json:
            _print_json(chat.invoke(messages, **settings).model_dump(mode="json"))
            return
        chunks = chat.stream(messages, **settings)
        if selection:
            chunks = _when_sampled(chunks, selection.n)
        message = print_stream(new_console(), chunks)
    seconds = time.perf_counter() - started
    print_summary(new_console(), message, seconds, with_numbers=is_verbose, wording=in_options)


def _when_sampled(chunks: Iterator[AIMessageChunk], num_answers: int) -> Iterator[AIMessageChunk]:
    """Yield chunks of which the first comes when all answers have ended, and say so meanwhile."""
    with loading.working(f"Sampling {num_answers} answers"):
        first = next(chunks)
    yield first
    yield from chunks


def _print_json(fields: dict[str, Any]) -> None:
    if sys.stdout.isatty():
        new_console().print_json(data=fields, ensure_ascii=False)
    else:
        typer.echo(json.dumps(fields))
