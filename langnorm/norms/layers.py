"""Which decoder layers a model has, and which of them are read.

Torch is imported only when a model is searched, so that options can be checked without it.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from langnorm.errors import ModelError, OptionError, closest

if TYPE_CHECKING:
    import torch

LayerSelection = Literal["late", "all"] | Sequence[int]
"""What the option `layers` takes."""

_NAMED_SELECTIONS = ("late", "all")


def select_layers(layers: LayerSelection, num_layers: int) -> tuple[int, ...]:
    """Return the indices of the decoder layers to read.

    Args:
        layers: `"late"` for the last quarter without the very last layer, `"all"`, or indices, where
            negative ones count from the end.
        num_layers: How many decoder layers the model has.

    Returns:
        0-based layer indices, ascending and without duplicates, at least one.

    Raises:
        OptionError: `layers` is none of these, is empty, or holds an index outside the model.
        ModelError: The model has no decoder layer.

    References:
        arXiv 2606.06188: on reasoning responses the norm rises in the late layers.
    """
    if num_layers < 1:
        msg = f"A model with `{num_layers}` decoder layers has no residual stream to read. Use another model."
        raise ModelError(msg)
    selection = check_layers(layers)
    if selection == "late":
        return _late_layers(num_layers)
    if selection == "all":
        return tuple(range(num_layers))
    return tuple(sorted({_checked_index(int(layer), num_layers) for layer in selection}))


def check_layers(layers: object) -> LayerSelection:
    """Return a selection of layers, checked as far as that needs no model; indices as a tuple.

    Raises:
        OptionError: `layers` is not `"late"`, `"all"`, or at least one index.
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


def _checked_integer(layer: object) -> int:
    # `True` would silently mean layer 1; integers of other libraries are fine.
    if isinstance(layer, bool) or not hasattr(layer, "__index__"):
        msg = (
            f"Layer `{layer!r}` is a `{type(layer).__name__}`, not an index. "
            'Use `layers="late"`, `layers="all"` or integers such as `[20, -2]`.'
        )
        raise OptionError(msg)
    return operator.index(layer)


def _checked_index(index: int, num_layers: int) -> int:
    if not -num_layers <= index < num_layers:
        msg = (
            f"Layer `{index}` is outside this model (0 to {num_layers - 1}). "
            f'Use `layers="late"` or indices below {num_layers}.'
        )
        raise OptionError(msg)
    return index % num_layers


def _not_a_selection(layers: object) -> str:
    return f'Layers `{layers!r}` are not a selection. Use `"late"`, `"all"` or a list of indices such as `[20, -2]`.'


def decoder_layers(model: torch.nn.Module, layers_path: str | None = None) -> torch.nn.ModuleList:
    """Return the list of decoder layers of a causal language model.

    The layers are the one `ModuleList` of the text decoder with as many entries as the configuration
    has hidden layers. Lists inside another list (experts, LoRA ranks) and lists outside the decoder
    (vision towers, encoders) do not count. Wrappers with `get_base_model`, as PEFT's, are looked through.

    Args:
        model: A transformers causal language model.
        layers_path: Dotted path of the layers, such as `"model.layers"`, for a model where the search
            finds none or several. It is believed: the number of layers is not checked.

    Returns:
        The list object that the model itself runs, so that hooks on its entries take effect.

    Raises:
        ModelError: No list fits, several do, or `layers_path` is not one.
    """
    base = _without_adapters(model)
    if layers_path is not None:
        return _layers_at(model, base, layers_path)
    num_layers = _num_hidden_layers(base)
    lists = _decoder_lists(base)
    matches = {path: found for path, found in lists.items() if len(found) == num_layers}
    if len(matches) == 1:
        return next(iter(matches.values()))
    if matches:
        msg = (
            f"`{type(base).__name__}` has `{len(matches)}` lists of `{num_layers}` modules that may be its "
            f"decoder layers: {_listing(matches)}. Pass `layers_path` with the path of the right one."
        )
    else:
        expected = (
            "its configuration has no `num_hidden_layers`"
            if num_layers is None
            else f"its configuration has `{num_layers}` hidden layers and no list of modules has that length"
        )
        msg = (
            f"The decoder layers of `{type(base).__name__}` were not found: {expected}. "
            f"Lists in the decoder: {_listing(lists)}. "
            "Pass `layers_path` with the dotted path of the decoder layers, "
            'such as `layers_path="model.layers"`.'
        )
    raise ModelError(msg)


def layer_output(output: Any) -> torch.Tensor:
    """Return the residual stream from what a decoder layer returned.

    Most decoder layers of transformers 5 return the tensor; Falcon, GPT-J, Bloom, MPT and others
    return a tuple that starts with it.

    Args:
        output: The return value of a decoder layer's `forward`.

    Returns:
        The hidden states `(batch, position, hidden)`, the same object, in the model's dtype.

    Raises:
        ModelError: The output is neither a tensor nor a tuple that starts with one, or there are several residual
            streams.
    """
    import torch

    states = output[0] if isinstance(output, tuple | list) and output else output
    if isinstance(states, torch.Tensor):
        if states.ndim == 3:  # (batch, position, hidden)
            return states
        msg = (
            f"A decoder layer returned states of shape `{tuple(states.shape)}`, not (batch, position, hidden): models "
            'with several residual streams, such as Gemma 3n, are not supported. Use another model, or `norms="off"`.'
        )
        raise ModelError(msg)
    msg = (
        f"A decoder layer returned `{type(output).__name__}`, not hidden states. Allowed are a tensor or a "
        "tuple that starts with one. If the wrong layers were found, pass `layers_path` with the path of the "
        "decoder layers."
    )
    raise ModelError(msg)


def _without_adapters(model: torch.nn.Module) -> torch.nn.Module:
    """Return the transformers model inside adapter wrappers."""
    while callable(getattr(model, "get_base_model", None)):
        inner = model.get_base_model()  # type: ignore[operator]
        if inner is model:
            break
        model = inner
    return model


def _num_hidden_layers(model: torch.nn.Module) -> int | None:
    """Return how many decoder layers the configuration promises, or `None` when it does not say."""
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config"):
        try:
            config = config.get_text_config(decoder=True)
        except ValueError:  # several text configurations: only the caller can choose
            return None
    return getattr(config, "num_hidden_layers", None)


def _decoder_lists(model: torch.nn.Module) -> dict[str, torch.nn.ModuleList]:
    """Return the outermost lists of the text decoder by their path in the model."""
    roots = [model.get_decoder()] if callable(getattr(model, "get_decoder", None)) else []  # type: ignore[operator]
    # In some models `decoder` is the language model head: then the search starts at the backbone.
    roots += [getattr(model, "base_model", model), model]
    paths = {id(module): path for path, module in model.named_modules()}
    for root in roots:
        if id(root) in paths and (lists := _outermost_lists(root, paths[id(root)])):
            return lists
    return {}


def _outermost_lists(module: torch.nn.Module, path: str) -> dict[str, torch.nn.ModuleList]:
    """Return the non-empty lists below a module, not those inside another list, each once."""
    import torch

    lists: dict[str, torch.nn.ModuleList] = {}
    for name, child in module.named_children():
        child_path = f"{path}.{name}" if path else name
        if isinstance(child, torch.nn.ModuleList):
            below = {child_path: child} if len(child) else {}
        else:
            below = _outermost_lists(child, child_path)
        known = {id(found) for found in lists.values()}
        lists.update({key: found for key, found in below.items() if id(found) not in known})
    return lists


def _layers_at(model: torch.nn.Module, base: torch.nn.Module, layers_path: str) -> torch.nn.ModuleList:
    """Return the list at a path, which may start at the wrapped model or at its wrapper."""
    import torch

    found = None
    for root in (base, model):
        try:
            found = root.get_submodule(layers_path)
        except AttributeError:
            continue
        if isinstance(found, torch.nn.ModuleList) and len(found):
            return found
    problem = "names no module" if found is None else f"is a `{type(found).__name__}`, not a list of layers,"
    msg = (
        f"`layers_path={layers_path!r}` {problem} in `{type(base).__name__}`. "
        f"Lists in the decoder: {_listing(_decoder_lists(base))}. Use one of them, or another `ModuleList`."
    )
    raise ModelError(msg)


def _listing(lists: dict[str, torch.nn.ModuleList]) -> str:
    return ", ".join(f"`{path}` ({len(found)} modules)" for path, found in lists.items()) or "none"
