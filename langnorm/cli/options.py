"""The options that several commands have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from langnorm.errors import closest

DEBUG = "langnorm.debug"
"""Under this key a context knows that tracebacks are wanted."""

NO_SCORE = "none"
"""What `--score` takes for no score."""

ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="MODEL", help="A folder, a GGUF file, a name on the Hugging Face hub, or abacus."
    ),
]

GgufOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="A GGUF file in MODEL's folder or repository.", show_default=False),
]

EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="What runs the model: transformers, or llamacpp for GGUF files; auto chooses by the model.",
    ),
]

EngineKwargsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-option",
        metavar="NAME=VALUE",
        help="An option of the engine's own, such as context_length=8192 for llamacpp; may be repeated.",
        show_default=False,
    ),
]


def parse_engine_options(entries: list[str] | None) -> dict[str, Any]:
    """Return the `engine_kwargs` that options of the command line mean.

    Args:
        entries: Each `NAME=VALUE`. Values are read as JSON, and those that are none are text.

    Raises:
        BadParameter: An entry has no name or no value, or a name is given twice.
    """
    found: dict[str, Any] = {}
    for entry in entries or []:
        name, equals, text = entry.partition("=")
        if not (name.isidentifier() and equals and text):
            msg = f"`{entry}` is not NAME=VALUE. Write for example `context_length=8192`."
            raise typer.BadParameter(msg, param_hint="--engine-option")
        if name in found:
            msg = f"`{name}` is given twice. Give one value."
            raise typer.BadParameter(msg, param_hint="--engine-option")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


DtypeOption = Annotated[
    str | None,
    typer.Option(
        metavar="DTYPE",
        help="float32, bfloat16 or float16.",
        show_default="that of the weights; float32 for a GGUF file",
    ),
]

DeviceOption = Annotated[
    str | None, typer.Option(metavar="DEVICE", help="Such as cpu, cuda, cuda:1, mps or auto.", show_default="cpu")
]

ChatTemplateOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A Jinja chat template in place of the model's own.", show_default=False),
]

MaxTokensOption = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Most tokens of an answer.", show_default="what the context holds"),
]

TemperatureOption = Annotated[
    float | None,
    typer.Option(min=0, metavar="T", help="0 is greedy.", show_default="0 for abacus, the model's own for any other"),
]


def parse_layers(value: str) -> str | list[int]:
    """Return the selection of layers that a text means."""
    names = ("late", "deep", "middle", "all")
    if value in names:
        return value
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        msg = f"`{value}` is not a selection of layers. Use late, deep, middle, all, or indices such as 9,10."
        raise typer.BadParameter(msg + closest(value, names)) from None


def _remember_debug(context: typer.Context, value: bool) -> None:  # noqa: FBT001 (typer calls it so)
    if value:
        context.meta[DEBUG] = True


DebugOption = Annotated[
    bool,
    typer.Option("--debug", callback=_remember_debug, is_eager=True, help="Show where in the code an error arose."),
]

QuestionArgument = Annotated[str, typer.Argument(help="The question; - reads it from standard input.")]

SystemOption = Annotated[
    str | None, typer.Option(metavar="TEXT", help="A system message before the question.", show_default=False)
]

SeedOption = Annotated[
    int | None, typer.Option(metavar="N", help="Repeats an answer where T is above 0.", show_default=False)
]

NoThinkOption = Annotated[bool, typer.Option("--no-think", help="Answer without reasoning, if the model can.")]

ProfileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A profile of norms, as `langnorm calibrate` writes it.",
        show_default="norm_profile.json beside the weights, if there is one",
    ),
]

IntensityOption = Annotated[
    str,
    typer.Option(metavar="KIND", help="Compare norms with all of the layer, or with those of the same token: token."),
]

StepSplitterOption = Annotated[str, typer.Option(metavar="STEP", help="What a step is: sentence, line or paragraph.")]

SelectOption = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Sample N answers and show the best.", show_default=False),
]

ScoreOption = Annotated[
    str | None,
    typer.Option(
        metavar="SCORE",
        help="By what answers are ranked: a name, weights such as mean_logprob=1,late_rate=0.5, or none.",
        show_default="default",
    ),
]

CombineOption = Annotated[
    str | None,
    typer.Option(metavar="HOW", help="What is added up of several scores: scores or ranks.", show_default="scores"),
]

VoteOption = Annotated[
    str | None,
    typer.Option(metavar="VOTE", help="none, majority, weighted or filtered.", show_default="none"),
]

StopOption = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="Draw no more than it takes to settle the answer: unanimous, beta or confidence.",
        show_default="draw all",
    ),
]


LayersOption = Annotated[
    Any,
    typer.Option(
        parser=parse_layers, metavar="LAYERS", help="Layers to read: late, deep, middle, all, or such as 3,4,5."
    ),
]
