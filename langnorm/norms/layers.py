"""Which decoder layers of a model are read."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Literal

from langnorm.checks import brief
from langnorm.errors import ModelError, OptionError, closest

LayerSelection = Literal["late", "deep", "middle", "all"] | Sequence[int]
"""What the option `layers` takes."""

_NAMED_SELECTIONS = ("late", "deep", "middle", "all")


def select_layers(layers: LayerSelection, num_layers: int) -> tuple[int, ...]:
    """Return the indices of the decoder layers to read.

    Args:
        layers: `"late"` for the last quarter without the very last layer, `"deep"` for the last tenth without it but
            two at least, `"middle"` for those from 0.45 to 0.60 of the depth but four at most and one at least,
            `"all"`, or indices, where negative ones count from the end.
        num_layers: How many decoder layers the model has.

    Returns:
        0-based layer indices, ascending and without duplicates, at least one.

    Raises:
        OptionError: `layers` is none of these, is empty, or holds an index outside the model.
        ModelError: The model has no decoder layer.

    References:
        arXiv 2606.06188: on reasoning responses the norm rises in the late layers. arXiv 2605.23872: the middle.
    """
    if num_layers < 1:
        msg = f"A model with `{num_layers}` decoder layers has no residual stream to read. Use another model."
        raise ModelError(msg)
    selection = check_layers(layers)
    if selection == "late":
        return _late_layers(num_layers)
    if selection == "deep":
        return _deep_layers(num_layers)
    if selection == "middle":
        return _middle_layers(num_layers)
    if selection == "all":
        return tuple(range(num_layers))
    return tuple(sorted({_checked_index(int(layer), num_layers) for layer in selection}))


def check_layers(layers: object) -> LayerSelection:
    """Return a selection of layers, checked as far as that needs no model; indices as a tuple.

    Raises:
        OptionError: `layers` is not `"late"`, `"deep"`, `"middle"`, `"all"`, or at least one index.
    """
    if isinstance(layers, str):
        if layers not in _NAMED_SELECTIONS:
            raise OptionError(_not_a_selection(layers) + closest(layers, _NAMED_SELECTIONS))
        return layers  # type: ignore[return-value]
    if not isinstance(layers, Sequence) or isinstance(layers, bytes | bytearray) or len(layers) == 0:
        raise OptionError(_not_a_selection(layers))
    return tuple(map(_checked_integer, layers))


def _late_layers(num_layers: int) -> tuple[int, ...]:
    """Return the last quarter without the very last layer, or the layer before it when none is left."""
    late = range(num_layers - max(1, num_layers // 4), num_layers - 1)
    return tuple(late) or (max(0, num_layers - 2),)


def _deep_layers(num_layers: int) -> tuple[int, ...]:
    """Return the last tenth, rounded up, without the very last layer: two layers at least, where there are so many."""
    num_deep = max(2, (num_layers + 9) // 10 - 1)
    return tuple(range(max(0, num_layers - 1 - num_deep), num_layers - 1)) or (0,)


def _middle_layers(num_layers: int) -> tuple[int, ...]:
    """Return the layers from 0.45 to 0.60 of the depth, both rounded down: four at most, one at least."""
    start, end = 9 * num_layers // 20, 3 * num_layers // 5  # integers: 0.6 * 5 is rounded to 3.0 by chance only
    return tuple(range(start, max(start + 1, min(start + 4, end))))


def _checked_integer(layer: object) -> int:
    # `True` would silently mean layer 1; integers of other libraries are fine.
    if not is_index(layer):
        msg = (
            f"Layer `{brief(layer)}` is a `{type(layer).__name__}`, not an index. "
            'Use `layers="late"`, `"deep"`, `"middle"`, `"all"` or integers such as `[20, -2]`.'
        )
        raise OptionError(msg)
    return operator.index(layer)  # type: ignore[arg-type]


def is_index(layer: object) -> bool:
    """Return whether a value is an integer, of any library, but neither True nor False."""
    try:
        operator.index(layer)  # type: ignore[arg-type]
    except TypeError:
        return False
    return not isinstance(layer, bool)


def _checked_index(index: int, num_layers: int) -> int:
    if not -num_layers <= index < num_layers:
        msg = (
            f"Layer `{index}` is outside this model (0 to {num_layers - 1}). "
            f'Use `layers="late"` or indices below {num_layers}.'
        )
        raise OptionError(msg)
    return index % num_layers


def _not_a_selection(layers: object) -> str:
    return (
        f'Layers `{brief(layers)}` are not a selection. Use `"late"`, `"deep"`, `"middle"`, `"all"` or a list '
        "of indices such as `[20, -2]`."
    )
