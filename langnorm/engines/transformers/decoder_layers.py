"""Finds the decoder layers of a model, and runs functions after them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from langnorm.errors import ModelError


@contextmanager
def hooked(decoder_layers: nn.ModuleList, hooks: Mapping[int, Callable[..., Any]]) -> Iterator[None]:
    """Run a hook after each of some layers inside the `with` block; none is left behind, whatever happens there.

    Args:
        decoder_layers: All decoder layers.
        hooks: By 0-based index of the layer, what torch's `register_forward_hook` takes. It is run for passes of the
            thread that enters the block.
    """
    handles = []
    try:
        for layer, hook in hooks.items():
            handles.append(decoder_layers[layer].register_forward_hook(for_this_thread(hook)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def for_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return a hook that ignores passes of other threads: weights may be shared with another engine, or with its user.

    Args:
        hook: What one of torch's functions that register hooks takes.
    """
    owner = threading.get_ident()

    @functools.wraps(hook)
    def own(*args: Any) -> Any:
        return hook(*args) if threading.get_ident() == owner else None

    return own


def find_decoder_layers(model: nn.Module, layers_path: str | None = None) -> nn.ModuleList:
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
    base = without_adapters(model)
    if layers_path is not None:
        return _layers_at(model, base, layers_path)
    num_layers = _num_hidden_layers(base)
    lists = _decoder_lists(base)
    matches = {path: modules for path, modules in lists.items() if len(modules) == num_layers}
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


def without_adapters(model: nn.Module) -> nn.Module:
    """Return the transformers model inside adapter wrappers."""
    while callable(getattr(model, "get_base_model", None)):
        inner = model.get_base_model()  # type: ignore[operator]
        if inner is model:
            break
        model = inner
    return model


def _num_hidden_layers(model: nn.Module) -> int | None:
    """Return how many decoder layers the configuration promises, or `None` when it does not say."""
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config"):
        try:
            config = config.get_text_config(decoder=True)
        except ValueError:  # several text configurations: only the caller can choose
            return None
    return getattr(config, "num_hidden_layers", None)


def _decoder_lists(model: nn.Module) -> dict[str, nn.ModuleList]:
    """Return the outermost lists of the text decoder by their path in the model."""
    roots = [model.get_decoder()] if callable(getattr(model, "get_decoder", None)) else []  # type: ignore[operator]
    # In some models `decoder` is the language model head: then the search starts at the backbone.
    roots += [getattr(model, "base_model", model), model]
    paths = {id(module): path for path, module in model.named_modules()}
    for root in roots:
        if id(root) in paths and (lists := _outermost_lists(root, paths[id(root)])):
            return lists
    return {}


def _outermost_lists(module: nn.Module, path: str) -> dict[str, nn.ModuleList]:
    """Return the non-empty lists below a module, not those inside another list, each once."""
    lists: dict[str, nn.ModuleList] = {}
    for name, child in module.named_children():
        child_path = f"{path}.{name}" if path else name
        if isinstance(child, nn.ModuleList):
            below = {child_path: child} if len(child) else {}
        else:
            below = _outermost_lists(child, child_path)
        listed = {id(modules) for modules in lists.values()}
        lists.update({path: modules for path, modules in below.items() if id(modules) not in listed})
    return lists


def _layers_at(model: nn.Module, base: nn.Module, layers_path: str) -> nn.ModuleList:
    """Return the list at a path, which may start at the wrapped model or at its wrapper."""
    module = None
    for root in (base, model):
        try:
            module = root.get_submodule(layers_path)
        except AttributeError:
            continue
        if isinstance(module, nn.ModuleList) and len(module):
            return module
    problem = "names no module" if module is None else f"is a `{type(module).__name__}`, not a list of layers,"
    msg = (
        f"`layers_path={layers_path!r}` {problem} in `{type(base).__name__}`. "
        f"Lists in the decoder: {_listing(_decoder_lists(base))}. Use one of them, or another `ModuleList`."
    )
    raise ModelError(msg)


def _listing(lists: dict[str, nn.ModuleList]) -> str:
    return ", ".join(f"`{path}` ({len(modules)} modules)" for path, modules in lists.items()) or "none"
