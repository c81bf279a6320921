"""Finds the decoder layers of a model of vLLM, and the residual stream in what they take and return.

Most layers of vLLM take and return a pair `(h, r)` whose sum is the residual stream: the sum is left to the norm that
comes next, which adds and normalises in one pass, in place. Others return the stream itself, alone or beside something
else. Which it is, a trial finds out when the model is loaded.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_NAMES = ("layers", "h", "blocks")
"""What models call the list of their decoder layers."""

_FINAL_NORMS = ("norm", "ln_f", "final_layernorm", "final_layer_norm", "norm_f")
"""What they call the norm after the last one."""

_NUM_TRIAL_TOKENS = 4
_TOLERANCE = 2e-2  # relative, of bfloat16


class UnknownModelError(RuntimeError):
    """The decoder layers of a model were not found, or what they return is not understood."""


def find_decoder_layers(model: nn.Module, num_layers: int) -> tuple[nn.ModuleList, nn.Module]:
    """Return the decoder layers of a model, and the module that they are in.

    Args:
        model: The model.
        num_layers: How many it has.

    Raises:
        UnknownModelError: There is no list of so many layers, or more than one.
    """
    found = [
        (module, model.get_submodule(name.rpartition(".")[0]))
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_layers and name.rpartition(".")[2] in _NAMES
    ]
    if len(found) != 1:
        msg = (
            f"The decoder layers of this model (`{type(model).__name__}`) were not found: {len(found)} lists of "
            f'{num_layers} layers. Use `engine="transformers"`.'
        )
        raise UnknownModelError(msg)
    return found[0]


class ResidualStream:
    """Reads and writes the residual stream of the decoder layers of one model.

    Args:
        rule: `"sum"` where layers return `(h, r)` and the stream is `h + r`, `"first"` where it is `h` itself, and
            `"alone"` where they return nothing else.
    """

    def __init__(self, rule: str) -> None:
        self.rule = rule

    def hidden(self, output: Any) -> Tensor:
        """Return the hidden states in what a layer returned, (N, d), or (1, N, d) with the backend of transformers."""
        states: Tensor = output if self.rule == "alone" else output[0]
        return states

    def get(self, output: Any) -> Tensor:
        """Return the stream (N, d) after a layer, from what it returned."""
        states = self.hidden(output)
        if self.rule == "sum":
            states = states + output[1]
        return states if states.dim() == 2 else states.flatten(0, -2)

    def output(self, hidden: Tensor, residual: Tensor | None) -> Any:
        """Return what a layer returned, as far as the stream is in it."""
        return hidden if self.rule == "alone" else (hidden, residual)

    def copy(self, output: Any, place: Tensor) -> None:
        """Write the stream after a layer to a place with the shape of its hidden states."""
        if self.rule == "sum":
            torch.add(output[0], output[1], out=place)
        else:
            place.copy_(self.hidden(output))

    def put(self, output: Any, before: Tensor, after: Tensor) -> Any:
        """Return the output of a layer with another stream in it, in new tensors; rows that are equal stay as they are.

        Args:
            output: What the layer returned.
            before: The stream (N, d) in it.
            after: What it is to be (N, d).
        """
        if self.rule != "sum":
            states = after.view_as(self.hidden(output))
            return states if self.rule == "alone" else (states, *output[1:])
        hidden, residual = output[0], output[1]
        is_changed = (after != before).any(dim=-1, keepdim=True).view(*hidden.shape[:-1], 1)
        hidden = torch.where(is_changed, after.view_as(hidden).to(hidden.dtype), hidden)
        return (hidden, residual.masked_fill(is_changed, 0), *output[2:])


class LayerCall:
    """The arguments of a decoder layer, some of them by name.

    Args:
        layer: The layer.
        args: The positional ones of a call.
        kwargs: Those by name.
    """

    def __init__(self, layer: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._layer = layer
        self._bound = signature_of(layer).bind(*args, **kwargs)

    def entering(self) -> Tensor:
        """Return the residual stream (N, d) that the layer is called with, in a tensor of its own."""
        arguments = self._bound.arguments
        states, residual = arguments["hidden_states"], arguments.get("residual")
        states = states.clone() if residual is None else states + residual
        entering: Tensor = states.flatten(0, -2)
        return entering

    def run(self, states: Tensor, rows: Sequence[int] | None) -> Any:
        """Return what the layer makes of another stream at the same positions; no hook sees it.

        Args:
            states: The stream (N, d).
            rows: Where its rows stand in the pass; None for the first rows. All others are 0.
        """
        arguments = dict(self._bound.arguments)
        # Layers write into what they are given. Without a residual, all of the stream is in the hidden states.
        entering = torch.zeros_like(arguments["hidden_states"])
        entering.flatten(0, -2)[slice(len(states)) if rows is None else rows] = states
        arguments["hidden_states"] = entering
        if "residual" in arguments:
            arguments["residual"] = None
        call = inspect.BoundArguments(self._bound.signature, OrderedDict(arguments))
        return self._layer.forward(*call.args, **call.kwargs)


def signature_of(layer: nn.Module) -> inspect.Signature:
    """Return the signature of a layer's `forward`.

    Raises:
        UnknownModelError: It takes no `hidden_states`.
    """
    signature = inspect.signature(layer.forward)
    if "hidden_states" not in signature.parameters:
        msg = f'Layers of the class `{type(layer).__name__}` take no `hidden_states`. Use `engine="transformers"`.'
        raise UnknownModelError(msg)
    return signature


@torch.inference_mode()
def find_residual_rule(model: nn.Module, layers: nn.ModuleList, parent: nn.Module, config: VllmConfig) -> str:
    """Return the rule of `ResidualStream` for a model, which a trial has confirmed.

    A few tokens are run without attention. What the rule reads after the last layer, put through the final norm, must
    be what the model returns.

    Args:
        model: The model.
        layers: Its decoder layers.
        parent: The module that they are in.
        config: Of the engine.

    Raises:
        UnknownModelError: No rule fits.
    """
    outputs: list[Any] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        parts = output if isinstance(output, tuple) else (output,)
        outputs.append(tuple(part.clone() if isinstance(part, Tensor) else part for part in parts))

    handle = layers[-1].register_forward_hook(keep)
    try:
        final = run_trial(model, config)
    finally:
        handle.remove()
    norm = next((getattr(parent, name) for name in _FINAL_NORMS if hasattr(parent, name)), None)
    if len(outputs) != 1 or norm is None:
        msg = f"The last layer or the final norm of this model (`{type(model).__name__}`) was not found."
        raise UnknownModelError(msg)
    parts = outputs[0]
    rules: list[tuple[str, Callable[[], Tensor]]] = [("alone", lambda: parts[0])]
    if len(parts) > 1:
        rules = [("first", lambda: parts[0])]
        if isinstance(parts[1], Tensor) and parts[1].shape == parts[0].shape:
            rules.insert(0, ("sum", lambda: parts[0] + parts[1]))
    for rule, states in rules:
        normed = norm(states())
        if _is_close(normed[0] if isinstance(normed, tuple) else normed, final):
            return rule
    msg = (
        f"What the decoder layers of this model (`{type(model).__name__}`) return is not understood: its final norm "
        'gives none of the sums of their parts. Use `engine="transformers"`.'
    )
    raise UnknownModelError(msg)


def run_trial(model: nn.Module, config: VllmConfig) -> Tensor:
    """Return what a model makes of a few tokens, without logits."""
    from vllm.config import set_current_vllm_config
    from vllm.forward_context import set_forward_context

    # Attention without keys and values gives what the memory held before: it is replaced by nothing. Some models call
    # its `forward` themselves, where hooks see nothing.
    attentions = [
        module
        for module in config.compilation_config.static_forward_context.values()
        if isinstance(module, nn.Module) and "forward" not in vars(module)
    ]
    for module in attentions:
        module.forward = _to_nothing(module.forward)
    device = next(model.parameters()).device
    ids = torch.arange(_NUM_TRIAL_TOKENS, device=device, dtype=torch.int32)
    positions = torch.arange(_NUM_TRIAL_TOKENS, device=device)
    context = set_forward_context(None, config, num_tokens=_NUM_TRIAL_TOKENS, skip_compiled=True)
    try:
        with set_current_vllm_config(config), context:
            final = model.forward(ids, positions, None, None)
    finally:
        for module in attentions:
            del module.forward
    states: Tensor = final[0] if isinstance(final, tuple) else final
    return states


def _to_nothing(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that returns zeros of the shape that `forward` returns."""

    def zeros(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        return torch.zeros_like(output) if isinstance(output, Tensor) else output

    return zeros


def _is_close(one: Tensor, other: Tensor) -> bool:
    one, other = one.float().flatten(0, -2), other.float().flatten(0, -2)
    return bool((one - other).norm() <= _TOLERANCE * other.norm()) if one.shape == other.shape else False
