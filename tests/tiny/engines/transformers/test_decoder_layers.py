"""Decoder layers are found in every family, and their outputs are read."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn

from langnorm.engines.transformers.decoder_layers import find_decoder_layers
from langnorm.engines.transformers.residual_stream import get_residual_stream
from langnorm.errors import ModelError
from tests.support.models import FAMILIES, NUM_LAYERS, tiny_model

PATHS = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}


def linears(count: int) -> nn.ModuleList:
    """Returns a list that is as long as asked and does nothing of interest."""
    return nn.ModuleList(nn.Linear(2, 2) for _ in range(count))


class Backbone(nn.Module):
    """Holds the given lists as its attributes."""

    def __init__(self, **lists: nn.ModuleList) -> None:
        super().__init__()
        for name, modules in lists.items():
            setattr(self, name, modules)


class CustomForCausalLM(nn.Module):
    """A model of no known family, as remote code brings them."""

    def __init__(self, num_hidden_layers: int | None = 4, **lists: nn.ModuleList) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=num_hidden_layers)
        self.body = Backbone(**lists)

    @property
    def base_model(self) -> nn.Module:
        """The model without its head."""
        return self.body


class Adapter(nn.Module):
    """Wraps a model the way PEFT does, with lists of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.base_model = nn.ModuleDict({"model": model})
        self.prompt_encoders = linears(NUM_LAYERS)
        self.config = SimpleNamespace(num_hidden_layers=None)

    def get_base_model(self) -> nn.Module:
        """Returns the wrapped model."""
        return self.base_model["model"]


class TestDecoderLayers:
    """The decoder layers are found, or the error says how to name them."""

    @pytest.mark.parametrize("family", FAMILIES)
    def test_finds_the_list_that_the_model_runs(self, family) -> None:
        """The very list of the model is returned, with one entry per hidden layer."""
        model = tiny_model(family)
        layers = find_decoder_layers(model)

        assert layers is model.get_submodule(PATHS.get(family, "model.layers"))
        assert len(layers) == NUM_LAYERS

    @pytest.mark.parametrize("family", FAMILIES)
    def test_finds_layers_of_a_bare_backbone_and_of_one_layer(self, family) -> None:
        """A model without a head and a model of a single layer are searched alike."""
        model = tiny_model(family, num_hidden_layers=1)

        assert find_decoder_layers(model.base_model) is find_decoder_layers(model)
        assert len(find_decoder_layers(model)) == 1

    @pytest.mark.parametrize("family", FAMILIES)
    def test_output_of_each_layer_is_hidden_states(self, family) -> None:
        """What a layer returns leads to hidden states `(batch, position, hidden)`."""
        model, shapes = tiny_model(family), []
        for layer in find_decoder_layers(model):
            layer.register_forward_hook(lambda _module, _args, output: shapes.append(get_residual_stream(output).shape))
        with torch.no_grad():
            model(torch.tensor([[5, 6, 7], [8, 9, 10]]))

        assert shapes == [(2, 3, 64)] * NUM_LAYERS

    def test_looks_through_adapter_wrappers(self) -> None:
        """Wrappers are looked through, even two of them and with a list of the same length."""
        model = tiny_model("llama")

        assert find_decoder_layers(Adapter(model)) is model.model.layers
        assert find_decoder_layers(Adapter(Adapter(model))) is model.model.layers

    def test_ignores_a_wrapper_that_wraps_itself(self) -> None:
        """A `get_base_model` that returns the model itself does not loop."""
        model = tiny_model("llama")
        model.get_base_model = lambda: model

        assert find_decoder_layers(model) is model.model.layers

    def test_finds_layers_of_a_compiled_model(self) -> None:
        """The wrapper of `torch.compile` is searched without compiling anything."""
        model = tiny_model("qwen3")

        assert find_decoder_layers(torch.compile(model, backend="eager")) is model.model.layers

    def test_is_not_fooled_by_experts(self) -> None:
        """Lists of experts inside the layers do not count, whatever their length."""
        layers = nn.ModuleList(Backbone(experts=linears(4)) for _ in range(4))
        model = CustomForCausalLM(layers=layers)

        assert find_decoder_layers(model) is layers

    def test_is_not_fooled_by_a_single_expert_list(self) -> None:
        """One expert list as long as the model is deep is not taken for the layers."""
        layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), Backbone(experts=linears(4))])

        with pytest.raises(ModelError, match=re.escape("`body.layers` (3 modules)")):
            find_decoder_layers(CustomForCausalLM(layers=layers))

    def test_is_not_fooled_by_a_vision_tower(self) -> None:
        """A vision tower as deep as the text model does not make the search ambiguous."""
        config = transformers.Gemma3Config(
            text_config=tiny_model("gemma3").config.to_dict(),
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_hidden_layers": NUM_LAYERS,
                "num_attention_heads": 2,
                "image_size": 28,
                "patch_size": 14,
            },
            mm_tokens_per_image=4,
        )
        model = transformers.Gemma3ForConditionalGeneration(config)

        assert find_decoder_layers(model) is model.model.language_model.layers

    @pytest.mark.parametrize("num_encoder_layers", [3, 4])
    def test_is_not_fooled_by_an_encoder(self, num_encoder_layers) -> None:
        """In an encoder-decoder model the decoder's layers are taken, also when both are as deep."""
        config = transformers.BartConfig(
            encoder_layers=num_encoder_layers,
            decoder_layers=4,
            d_model=32,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            vocab_size=50,
        )
        model = transformers.BartForConditionalGeneration(config)

        assert find_decoder_layers(model) is model.model.decoder.layers

    @pytest.mark.parametrize("name", ["layers", "h", "blocks", "anything"])
    def test_finds_an_unambiguous_list_of_an_unknown_model(self, name) -> None:
        """The attribute's name does not matter as long as one list has the right length."""
        model = CustomForCausalLM(**{name: linears(4), "adapters": linears(2)})

        assert find_decoder_layers(model) is getattr(model.body, name)

    def test_list_reached_by_two_paths_counts_once(self) -> None:
        """An alias of the layers elsewhere in the backbone does not make the search ambiguous."""
        layers = linears(4)
        model = CustomForCausalLM(layers=layers)
        model.body.inner = Backbone(blocks=layers)

        assert find_decoder_layers(model) is layers

    def test_decoder_that_is_a_language_model_head_is_passed_over(self) -> None:
        """When `get_decoder` leads to a module without lists, the backbone is searched."""
        model = CustomForCausalLM(layers=linears(4))
        model.decoder = nn.Linear(2, 2)
        model.get_decoder = lambda: model.decoder

        assert find_decoder_layers(model) is model.body.layers

    def test_no_match_names_the_lists_and_the_remedy(self) -> None:
        """The error says which lists were seen, how long they are, and what to pass."""
        with pytest.raises(ModelError) as error:
            find_decoder_layers(CustomForCausalLM(blocks=linears(3), adapters=linears(2)))

        assert str(error.value) == (
            "The decoder layers of `CustomForCausalLM` were not found: its configuration has `4` hidden "
            "layers and no list of modules has that length. Lists in the decoder: `body.blocks` (3 modules), "
            "`body.adapters` (2 modules). Pass `layers_path` with the dotted path of the decoder layers, "
            'such as `layers_path="model.layers"`.'
        )

    @pytest.mark.parametrize("num_hidden_layers", [None, 4])
    def test_model_without_lists_or_depth_is_an_error(self, num_hidden_layers) -> None:
        """Neither a model without lists nor one that does not say its depth is guessed at."""
        lists = {} if num_hidden_layers else {"layers": linears(4)}

        with pytest.raises(ModelError, match="none" if num_hidden_layers else "has no `num_hidden_layers`"):
            find_decoder_layers(CustomForCausalLM(num_hidden_layers, **lists))
        with pytest.raises(ModelError, match="`Linear` were not found"):
            find_decoder_layers(nn.Linear(2, 2))

    def test_configuration_with_two_text_models_is_an_error(self) -> None:
        """A configuration that cannot say which text model is meant asks for the path."""
        model = CustomForCausalLM(layers=linears(4))
        model.config = transformers.PreTrainedConfig()
        model.config.decoder, model.config.text_config = (
            transformers.LlamaConfig(),
            transformers.LlamaConfig(),
        )

        with pytest.raises(ModelError, match="layers_path"):
            find_decoder_layers(model)

    def test_two_lists_that_match_are_an_error(self) -> None:
        """Two lists of the right length are named, and the path settles it."""
        model = CustomForCausalLM(layers=linears(4), gates=linears(4))

        with pytest.raises(ModelError) as error:
            find_decoder_layers(model)

        assert str(error.value) == (
            "`CustomForCausalLM` has `2` lists of `4` modules that may be its decoder layers: "
            "`body.layers` (4 modules), `body.gates` (4 modules). "
            "Pass `layers_path` with the path of the right one."
        )
        assert find_decoder_layers(model, layers_path="body.gates") is model.body.gates

    def test_path_is_believed_inside_and_outside_a_wrapper(self) -> None:
        """A path is taken from the wrapped model or from the wrapper, and its length is not checked."""
        model = tiny_model("llama", num_hidden_layers=3)
        model.config.num_hidden_layers = 99
        wrapper = Adapter(model)

        assert find_decoder_layers(model, "model.layers") is model.model.layers
        assert find_decoder_layers(wrapper, "model.layers") is model.model.layers
        assert find_decoder_layers(wrapper, "base_model.model.model.layers") is model.model.layers

    @pytest.mark.parametrize(
        ("path", "problem"),
        [
            ("model.blocks", "names no module"),
            ("model.layers.40", "names no module"),
            ("model.norm", "is a `LlamaRMSNorm`, not a list"),
            ("", "is a `LlamaForCausalLM`, not a list"),
        ],
    )
    def test_path_that_is_no_list_is_an_error(self, path, problem) -> None:
        """A wrong path is named together with the lists that exist."""
        with pytest.raises(ModelError, match=problem) as error:
            find_decoder_layers(tiny_model("llama"), path)

        assert f"`layers_path='{path}'`" in str(error.value)
        assert "`model.layers` (4 modules)" in str(error.value)


class TestLayerOutput:
    """Hidden states are read from what a layer returns."""

    def test_takes_tensor_and_tuple(self) -> None:
        """A tensor is returned as it is, and a tuple or list gives its first entry."""
        states = torch.ones(1, 2, 3)

        assert get_residual_stream(states) is states
        assert get_residual_stream((states, None)) is states
        assert get_residual_stream([states]) is states

    def test_tuple_layers_of_a_real_family_are_read(self) -> None:
        """Bloom's layers return a tuple, and its first entry is the hidden states."""
        model = transformers.BloomForCausalLM(
            transformers.BloomConfig(vocab_size=50, hidden_size=32, n_layer=3, n_head=4)
        ).eval()
        outputs: list[object] = []
        find_decoder_layers(model)[1].register_forward_hook(lambda _module, _args, output: outputs.append(output))
        with torch.no_grad():
            states = model(torch.tensor([[5, 6, 7]]), output_hidden_states=True).hidden_states

        assert isinstance(outputs[0], tuple)
        assert torch.equal(get_residual_stream(outputs[0]), states[2])

    @pytest.mark.parametrize("output", [None, (), (None, 1), {"hidden_states": 1}, "text"])
    def test_other_output_is_an_error(self, output) -> None:
        """An output without hidden states is an error that names its type."""
        with pytest.raises(ModelError, match=f"`{type(output).__name__}`, not hidden states"):
            get_residual_stream(output)


def test_several_residual_streams_are_refused() -> None:
    """Reading one of them for the others would be wrong without a word."""
    with pytest.raises(ModelError, match=r"shape `\(4, 2, 3, 8\)`.*several residual streams"):
        get_residual_stream(torch.zeros(4, 2, 3, 8))
