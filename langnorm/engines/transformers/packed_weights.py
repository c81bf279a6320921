"""Rounds a model's weights to 8 or 4 bits, which a CPU reads faster: in a decode step, reading them takes the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from langnorm.checks import check_choice, refuse
from langnorm.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORMS = ("int8", "int4")
"""What weights may be packed as."""

_GROUP = 32
"""Number of neighbouring 4-bit values that share a scale and a lowest value, as in the formats of llama.cpp."""

_KERNEL_WIDTH = 16
"""Of how many outputs the kernel for 4 bits takes multiples only."""

_MAX_ROWS = 3
"""Up to so many tokens in a pass, packed weights are faster than those in bfloat16 (`python -m benchmarks.packing`)."""


def check_form(form: Any, dtype: Any) -> None:
    """Raise `OptionError` unless weights may be packed in a form (None: not at all) in a model of a dtype."""
    if form is None:
        return
    check_choice("packed_weights", form, FORMS, owner="model_kwargs")
    if dtype != "bfloat16":
        refuse(
            "dtype",
            dtype,
            f'"bfloat16" together with `packed_weights="{form}"`, or leave one of them out',
            "model_kwargs",
        )


def packed_form(model: PreTrainedModel) -> str | None:
    """Return what the weights of a model are packed as, or None where they are not."""
    kinds = {type(module) for module in model.modules()}
    return "int4" if _Int4Linear in kinds else "int8" if _Int8Linear in kinds else None


def pack_weights(model: PreTrainedModel, form: str) -> None:
    """Round the weights of all linear layers of a model, and let decode steps of few sequences read them packed.

    With `"int8"` each output has a scale, with `"int4"` each group of 32 inputs has a scale and a lowest value. The
    rounded values also stay in bfloat16, for passes of many tokens: the same weights are used whatever the batch, at
    the cost of half as much memory again, or a quarter. With `"int4"`, the layer that makes the logits gets 8 bits.

    Args:
        model: In bfloat16 on a CPU.
        form: `"int8"` or `"int4"`.

    Raises:
        ModelError: The model is somewhere else, or of another type.
    """
    parameters = {(parameter.device.type, parameter.dtype) for parameter in model.parameters()}
    if parameters != {("cpu", torch.bfloat16)}:
        found = ", ".join(sorted(f"{str(dtype).removeprefix('torch.')} on {device}" for device, dtype in parameters))
        msg = (
            f'`packed_weights="{form}"` is for models in bfloat16 on a CPU, and this one is in {found}. Add '
            '`"dtype": "bfloat16"` to `model_kwargs`, or leave `packed_weights` out.'
        )
        raise ModelError(msg)
    logits_layer = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if type(module) is nn.Linear:
                is_divisible = module.in_features % _GROUP == 0 and module.out_features % _KERNEL_WIDTH == 0
                is_narrow = form == "int4" and module is not logits_layer and is_divisible
                setattr(parent, name, (_Int4Linear if is_narrow else _Int8Linear)(module))


class _PackedLinear(nn.Module):
    """A linear layer whose weight (N, K) is kept rounded, in bfloat16, and packed beside it."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features
        with torch.no_grad():
            self.weight.copy_(self._pack(self.weight.float()))

    def _pack(self, weight: Tensor) -> Tensor:
        """Keep a weight (N, K) packed, and return it as it is after rounding."""
        raise NotImplementedError

    def _multiply(self, rows: Tensor) -> Tensor:
        """Return rows (M, K) times the packed weight, (M, N)."""
        raise NotImplementedError

    def forward(self, states: Tensor) -> Tensor:
        rows = states.reshape(-1, self.in_features)
        if len(rows) > _MAX_ROWS:
            return nn.functional.linear(states, self.weight, self.bias)
        product = self._multiply(rows).view(*states.shape[:-1], self.out_features)
        return product if self.bias is None else product + self.bias


class _Int8Linear(_PackedLinear):
    _values: Tensor
    _scales: Tensor

    def _pack(self, weight: Tensor) -> Tensor:
        scales = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny).bfloat16()
        values = (weight / scales.float()[:, None]).round().clamp(-128, 127)
        self.register_buffer("_values", values.to(torch.int8), persistent=False)
        self.register_buffer("_scales", scales, persistent=False)
        return values * scales.float()[:, None]

    def _multiply(self, rows: Tensor) -> Tensor:
        product: Any = torch._weight_int8pack_mm(rows, self._values, self._scales)
        return product  # type: ignore[no-any-return]


class _Int4Linear(_PackedLinear):
    _values: Tensor
    _scales_and_zeros: Tensor

    def _pack(self, weight: Tensor) -> Tensor:
        groups = weight.view(len(weight), -1, _GROUP)  # (N, K / 32, 32)
        lowest, highest = groups.amin(dim=-1), groups.amax(dim=-1)
        scales = ((highest - lowest) / 15).clamp(min=torch.finfo(torch.float32).tiny).bfloat16().float()
        # The kernel computes (value - 8) * scale + zero.
        zeros = (lowest + 8 * scales).bfloat16().float()
        values = ((groups - zeros[..., None]) / scales[..., None]).round().add(8).clamp(0, 15)
        packed = torch._convert_weight_to_int4pack_for_cpu(values.view_as(weight).to(torch.int32), 1)
        both = torch.stack([scales, zeros], dim=-1).transpose(0, 1).contiguous()  # (K / 32, N, 2)
        self.register_buffer("_values", packed, persistent=False)
        self.register_buffer("_scales_and_zeros", both.bfloat16(), persistent=False)
        return ((values - 8) * scales[..., None] + zeros[..., None]).view_as(weight)

    def _multiply(self, rows: Tensor) -> Tensor:
        product: Any = torch._weight_int4pack_mm_for_cpu(rows, self._values, _GROUP, self._scales_and_zeros)
        return product  # type: ignore[no-any-return]
