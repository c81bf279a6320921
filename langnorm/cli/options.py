"""The options that several commands have."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from langnorm.errors import closest

ModelOption = Annotated[
    str, typer.Option("--model", "-m", metavar="MODEL", help="A folder, a name on the Hugging Face hub, or abacus.")
]

MaxTokensOption = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Most tokens of an answer.", show_default="what the context holds"),
]

TemperatureOption = Annotated[
    float | None,
    typer.Option(min=0, metavar="T", help="0 is greedy.", show_default="0 for abacus, the model's own for any other"),
]


def _parse_layers(value: str) -> str | list[int]:
    names = ("late", "all")
    if value in names:
        return value
    try:
        return [int(part) for part in value.split(",")]
    except ValueError:
        msg = f"`{value}` is not a selection of layers. Use late, all, or indices such as 9,10."
        raise typer.BadParameter(msg + closest(value, names)) from None


LayersOption = Annotated[
    Any,
    typer.Option(parser=_parse_layers, metavar="LAYERS", help="Layers to read: late, all, or such as 3,4,5."),
]
