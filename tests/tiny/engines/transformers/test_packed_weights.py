"""Weights in 8 or 4 bits: each layer gives what its rounded weights give, packed or not."""

from __future__ import annotations

import pytest
import torch

from langnorm.engines.transformers.packed_weights import FORMS, check_form, pack_weights
from langnorm.errors import ModelError, OptionError
from tests.support.models import tiny_model

WIDTHS = {"hidden_size": 128, "intermediate_size": 256}


def linear_layers(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Return the linear layers of a model by name, packed or not."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "out_features")}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", ["qwen2", "llama"])  # with biases in the attention, and without
@torch.inference_mode()
def test_few_rows_and_many_are_multiplied_by_the_same_rounded_weights(form, family):
    """One row goes through the kernel, six through the kept weights; both match a product in float64."""
    model = tiny_model(family, dtype=torch.bfloat16, **WIDTHS)
    pack_weights(model, form)
    layers = linear_layers(model)
    assert len(layers) == 4 * 7 + 1
    for module in layers.values():
        rows = torch.randn(6, 1, module.in_features, dtype=torch.bfloat16)
        bias = 0 if module.bias is None else module.bias.double()
        exact = rows.double() @ module.weight.double().T + bias
        packed = torch.cat([module(row[None]) for row in rows])
        torch.testing.assert_close(packed.double(), exact, rtol=0.02, atol=0.02 * exact.abs().max().item())
        torch.testing.assert_close(module(rows).double(), exact, rtol=0.02, atol=0.02 * exact.abs().max().item())


@pytest.mark.parametrize(("form", "largest"), [("int8", 1 / 254), ("int4", 1 / 30)])
def test_weights_are_rounded_by_half_a_step_at_most(form, largest):
    """A step is a 254th of the span of an output, or a 15th of that of a group."""
    model, exact = (tiny_model("qwen2", dtype=torch.bfloat16, **WIDTHS) for _ in range(2))
    pack_weights(model, form)
    for name, module in linear_layers(exact).items():
        if form == "int4" and name == "lm_head":
            continue
        before, after = module.weight.float(), model.get_submodule(name).weight.float()
        groups = before.view(len(before), -1, 32) if form == "int4" else before[:, None]
        span = groups.amax(-1) - groups.amin(-1) if form == "int4" else 2 * groups.abs().amax(-1)
        error = (after - before).abs().view_as(groups).amax(-1)
        # bfloat16 keeps eight bits of scale, lowest value and result
        assert (error <= span * largest * 1.05 + groups.abs().amax(-1) * 2**-7).all()


def test_the_layer_that_makes_the_logits_and_odd_widths_keep_eight_bits():
    """Where 4 bits cost much, or do not fit the kernel, there are 8."""
    model = tiny_model("qwen2", dtype=torch.bfloat16, intermediate_size=144)
    pack_weights(model, "int4")
    kinds = {name: type(module).__name__ for name, module in linear_layers(model).items()}
    assert {name.rpartition(".")[2] for name, kind in kinds.items() if kind == "_Int8Linear"} == {
        "lm_head",
        "down_proj",
    }


def test_all_zero_weights_stay_zero():
    """A span of nothing is not divided by."""
    model = tiny_model("llama", dtype=torch.bfloat16)
    torch.nn.init.zeros_(model.model.layers[1].mlp.up_proj.weight)
    pack_weights(model, "int4")
    assert not model.model.layers[1].mlp.up_proj.weight.any()


def test_tied_weights_stay_tied():
    """The embedding is the same object as before."""
    model = tiny_model("qwen2", dtype=torch.bfloat16, tie_word_embeddings=True)
    pack_weights(model, "int8")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_packed_model_generates():
    """The model class of transformers runs it like any other."""
    model = tiny_model("qwen2", dtype=torch.bfloat16, **WIDTHS)
    pack_weights(model, "int4")
    ids = torch.arange(3, 12)[None]
    assert model.generate(ids, max_new_tokens=8, do_sample=False).shape == (1, 17)


def test_other_types_are_refused_before_anything_changes():
    """float32 has no kernel that is worth it."""
    model = tiny_model("llama")
    with pytest.raises(ModelError, match=r'is in float32 on cpu. Add `"dtype": "bfloat16"` to `model_kwargs`'):
        pack_weights(model, "int8")
    assert type(model.lm_head) is torch.nn.Linear


def test_a_form_that_does_not_exist_is_refused():
    """With the closest one."""
    with pytest.raises(OptionError, match=r"`packed_weights='int5'` of `model_kwargs`.*Did you mean"):
        check_form("int5", "bfloat16")
