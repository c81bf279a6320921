"""The options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langnorm.errors import closest

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


LayersOption = Annotated[
    Any,
    typer.Option(
        parser=parse_layers, metavar="LAYERS", help="Layers to read: late, deep, middle, all, or such as 3,4,5."
    ),
]
