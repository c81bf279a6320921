"""What a model does with the residual stream after its last decoder layer: norm, unembedding, a scale or a cap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from langnorm.engines.transformers.decoder_layers import hooked, without_adapters
from langnorm.engines.transformers.residual_stream import get_residual_stream
from langnorm.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

_TOLERANCE = 0.02  # of the largest logit: half precision rounds a product differently where more rows are in it
_FACTORS = ("logit_scale", "lm_head_multiplier")  # Cohere and Falcon H1; of Granite, a divisor: `logits_scaling`
_MOST_CHECKED = 8  # tokens


class Unembedding:
    """Returns the logits that a model would have if its last layers did nothing (a logit lens).

    Args:
        model: A causal language model of transformers.
        decoder_layers: Its decoder layers.

    Raises:
        ModelError: The model does not say which module its unembedding is.
    """

    def __init__(self, model: Any, decoder_layers: nn.ModuleList) -> None:
        base: Any = without_adapters(model)
        self._model, self._decoder_layers = base, decoder_layers
        self._output: Any = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
        if self._output is None:
            raise ModelError(_refusal(base, "it names no output embeddings"))
        self._norm = _find_final_norm(base, decoder_layers)
        config = base.config.get_text_config()
        factors = [getattr(config, name, None) for name in _FACTORS]
        if divisor := getattr(config, "logits_scaling", None):
            factors.append(1 / divisor)
        self._factors = [factor for factor in factors if isinstance(factor, int | float)]
        self._cap = getattr(config, "final_logit_softcapping", None)

    def __call__(self, states: Tensor) -> Tensor:
        """Return the logits (R, V), float32, of states (R, d) after any decoder layer, in the model's dtype."""
        if self._norm is not None:
            states = self._norm(_moved(states, self._norm))
        logits: Tensor = self._output(_moved(states, self._output))
        for factor in self._factors:
            logits = logits * factor
        if self._cap is not None:
            logits = torch.tanh(logits / self._cap) * self._cap
        return logits.float()

    @torch.inference_mode()
    def check(self, token_ids: Sequence[int]) -> None:
        """Do nothing if the model makes the same logits of what its last layer puts out, in a pass over a few tokens.

        Args:
            token_ids: Some text.

        Raises:
            ModelError: It makes others of it.
        """
        last: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            last.append(get_residual_stream(output)[:, -1].clone())

        ids = torch.tensor([list(token_ids[:_MOST_CHECKED])], device=self._model.device)
        with hooked(self._decoder_layers, {len(self._decoder_layers) - 1: keep}):
            expected = self._model(ids, use_cache=False, return_dict=True).logits[:, -1].float()
        try:
            found = self(last[-1]).to(expected.device)
        except RuntimeError:  # the shapes do not fit: something stands between
            found = torch.full_like(expected, torch.nan)
        finite = expected.isfinite()  # what fills up a vocabulary may be minus infinity
        is_same = found.shape == expected.shape and bool(finite.any())
        if is_same:  # as far as shapes go; a difference that is no number is not small
            is_same = bool((found - expected)[finite].abs().max() <= _TOLERANCE * expected[finite].abs().max())
        if not is_same:
            raise ModelError(_refusal(self._model, "its logits are not those of its final norm and output embeddings"))


def _find_final_norm(base: Any, decoder_layers: nn.ModuleList) -> nn.Module | None:
    """Return the last norm that stands behind the decoder layers in the module that holds them, or None."""
    paths = [path for path, module in base.named_modules() if module is decoder_layers]
    owner = base.get_submodule(paths[0].rpartition(".")[0]) if paths else base
    children = list(owner.children())
    start = next((i for i, child in enumerate(children) if child is decoder_layers), 0)
    norms = [child for child in children[start + 1 :] if "norm" in type(child).__name__.lower()]
    return norms[-1] if norms else None


def _moved(states: Tensor, module: nn.Module) -> Tensor:
    """Return states where the parameters of a module are; those that are elsewhere for a while have come by then."""
    weight = next(module.parameters(), states)
    return states if weight.device.type == "meta" else states.to(weight.device)


def _refusal(base: Any, why: str) -> str:
    return (
        f"The states of `{type(base).__name__}` cannot be read through a logit lens: {why}. Leave `lens` out, or use "
        "another model."
    )
