"""Which model families recursion, steering and suppression work on; the table in the documentation is tested here."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers

from langnorm.engines.options import Sampling
from langnorm.engines.requests import Record, Request
from langnorm.engines.transformers.decoder_layers import find_decoder_layers
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.engines.transformers.rerun import LayerRerunner
from langnorm.engines.transformers.residual_stream import get_residual_stream
from langnorm.errors import ModelError
from langnorm.interventions.options import Recursion, Steering, Suppression
from langnorm.interventions.plan import Plan, Plans
from tests.support.calls import PROMPTS, answers, counted_passes, num_hooks
from tests.support.models import FAMILIES, NUM_LAYERS, tiny_model
from tests.tiny.engines.transformers.test_intervening import FAMILIES as WITH_ORACLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

PAGE = Path(__file__).parents[4] / "docs" / "interventions.md"
LAYERS = tuple(range(NUM_LAYERS))
NUM_TOKENS = 10  # with the longest prompt, beyond every sliding window here
NEVER = (10**6,)  # beyond every vocabulary

_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "initializer_range": 0.3,
}
_HEADS = {"num_key_value_heads": 2, "head_dim": 16}
_WINDOW = {**_HEADS, "sliding_window": 16}
_LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
_GATED_DELTA = {
    **_HEADS,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention"] * 3 + ["full_attention"],
}
_SCAN = {"mamba_d_state": 8, "mamba_chunk_size": 16, "num_key_value_heads": 2}

MORE_FAMILIES: dict[str, dict[str, Any]] = {
    "cohere2": _WINDOW,
    "deepseek_v3": {
        **_LATENT,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": 32,
    },
    "falcon": {},  # its layers return tuples
    # The last two layers read keys and values of earlier ones.
    "gemma4_text": {
        **_WINDOW,
        "global_head_dim": 16,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 16,
    },
    "gpt_oss": {**_WINDOW, "num_local_experts": 4},
    "granite": {"num_key_value_heads": 2},
    "llama4_text": {**_HEADS, "num_local_experts": 2, "attention_chunk_size": 16, "intermediate_size_mlp": 64},
    "olmo3": _WINDOW,
    "phi3": {"num_key_value_heads": 2},
}
"""Families with nothing but attention, beside those of `tests.support.models`."""

RECURRENT: dict[str, dict[str, Any]] = {
    "falcon_h1": {
        **_SCAN,
        "head_dim": 16,
        "mamba_d_ssm": 64,
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_n_groups": 1,
    },
    "granitemoehybrid": {
        **_SCAN,
        "num_local_experts": 0,
        "shared_intermediate_size": 64,
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "layer_types": ["linear_attention"] * 3 + ["full_attention"],
    },
    "lfm2": {"num_key_value_heads": 2, "layer_types": ["conv", "conv", "full_attention", "conv"]},
    "mamba": {"state_size": 8},
    "qwen3_5_text": _GATED_DELTA,
    "qwen3_next": {
        **_GATED_DELTA,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    },
    "rwkv": {},
}
"""Families whose layers, all or some, have a recurrent state."""

KINDS = {"falcon_h1": "hybrid", "lfm2": "conv", "rwkv": "recurrent"}  # others: linear_attention


def table() -> str:
    """Return the table of the documentation."""

    def listed(names: Any) -> str:
        return ", ".join(f"`{name}`" for name in names)

    attention = sorted({*FAMILIES, *MORE_FAMILIES} - {*WITH_ORACLE})
    kinds = listed(sorted({"linear_attention", *KINDS.values()}))
    rows = [
        ("family (`model_type`)", "recursion", "steering, suppression"),
        ("---", "---", "---"),
        (listed(WITH_ORACLE), "as defined: equal to an implementation without a cache", "as defined, likewise"),
        (listed(attention), "a layer that is run again on its own input gives its own output", "run"),
        (listed(RECURRENT), f"refused on layers of {kinds}", "run, on all layers"),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


@pytest.fixture(scope="module")
def any_model_of(tokenizer) -> Callable[[str], PreTrainedModel]:
    """Return the tiny model of a family, whose answers never end by themselves."""

    @cache
    def build(family: str) -> PreTrainedModel:
        fields = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "eos_token_id": list(NEVER)}
        if family in FAMILIES:
            return tiny_model(family, **fields)
        fields |= _SIZES | (MORE_FAMILIES | RECURRENT)[family]
        if family == "gemma4_text":
            fields["vocab_size_per_layer_input"] = len(tokenizer)
        config = transformers.AutoConfig.for_model(family, **fields)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()

    return build


@pytest.mark.parametrize("family", [*FAMILIES, *MORE_FAMILIES])
def test_a_layer_run_again_on_its_own_input_gives_its_own_output(family: str, any_model_of) -> None:
    """For some rows of a padded batch, at every step and layer; and what is generated stays the same."""
    model, rows, differences = any_model_of(family), [0, 2], []
    ids, mask = padded([PROMPTS[0], PROMPTS[1], PROMPTS[2]])
    options = {"attention_mask": mask, "max_new_tokens": NUM_TOKENS, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(ids, **options)
    layers = find_decoder_layers(model)
    rerunner, handles = LayerRerunner(layers, LAYERS), []

    def compare(layer: int) -> Any:
        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            entered = args[0] if args else kwargs["hidden_states"]
            again = rerunner.run([layer], entered[rows], rows, len(ids))
            differences.append((again - get_residual_stream(output)[rows])[:, -1].abs().max().item())

        return hook

    with rerunner.attached(), torch.inference_mode():
        handles = [layers[i].register_forward_hook(compare(i), with_kwargs=True) for i in LAYERS]
        try:
            found = model.generate(ids, **options)
        finally:
            for handle in handles:
                handle.remove()
    assert found.tolist() == expected.tolist()
    assert len(differences) == NUM_LAYERS * NUM_TOKENS
    assert max(differences) < 1e-3
    assert num_hooks(model) == 0


@pytest.mark.parametrize("family", [*FAMILIES, *MORE_FAMILIES, *RECURRENT])
def test_steering_and_suppression_run_on_every_layer(family: str, any_model_of, tokenizer) -> None:
    """Every token of every row is pulled, to itself, and shrunk, by nearly nothing."""
    engine = TransformersEngine(any_model_of(family), tokenizer)
    pull = Steering(trigger="slack", low_k=1, gamma=1e30, p_inject=1.0, cooldown=0)
    shrink = Suppression(factor=0.999)
    below_all = (1e-20,) * NUM_LAYERS
    plans = Plans(steering=Plan(pull, LAYERS, below_all), suppression=Plan(shrink, LAYERS[1:], below_all[1:]))
    requests = [Request(p, Sampling(max_tokens=NUM_TOKENS), Record(layers=LAYERS), plans=plans) for p in PROMPTS[:2]]
    for completion in answers(engine, requests):
        report = completion.interventions
        pulls = [(pull["token"], pull["layer"]) for pull in report["steering"]["injections"]]
        assert pulls == [(token, layer) for token in range(NUM_TOKENS - 1) for layer in LAYERS]
        assert all(pull["cosine"] == pytest.approx(1, abs=1e-4) for pull in report["steering"]["injections"])
        assert report["suppression"]["suppressed"] == {str(layer): NUM_TOKENS - 1 for layer in LAYERS[1:]}
        assert len(completion.norms) == NUM_TOKENS - 1


@pytest.mark.parametrize("family", [*FAMILIES, *MORE_FAMILIES])
def test_a_block_loop_runs_and_leaves_no_trace(family: str, any_model_of, tokenizer) -> None:
    """In prompt and answer; with all of the weight on the first pass, tokens and norms are those without."""
    engine = TransformersEngine(any_model_of(family), tokenizer)

    def ask_all(recursion: Recursion | None) -> list[Any]:
        plans = Plans(recursion and Plan(recursion, (1, 2), None))
        sampling, record = Sampling(max_tokens=NUM_TOKENS), Record(layers=LAYERS)
        return answers(engine, [Request(prompt, sampling, record, plans=plans) for prompt in PROMPTS[:3]])

    plain = ask_all(None)
    for on in ("prefill", "decode"):
        loop = Recursion(mode="block", layers=(1, 2), on=on, anchor=1.0, num_loops=3)
        for found, expected in zip(ask_all(loop), plain, strict=True):
            assert found.token_ids == expected.token_ids
            torch.testing.assert_close(torch.tensor(found.norms), torch.tensor(expected.norms), rtol=1e-4, atol=1e-4)
        for found in ask_all(replace(loop, anchor=0.5)):
            assert found.interventions["recursion"]["moved"]["mean"] > 1e-3


@pytest.mark.parametrize("family", RECURRENT)
def test_recursion_is_refused_where_there_is_a_recurrent_state(family: str, any_model_of, tokenizer) -> None:
    """Before any compute; the error says which layers there are."""
    model = any_model_of(family)
    engine = TransformersEngine(model, tokenizer)
    kinds = getattr(model.config, "layer_types", None) or ["recurrent"] * NUM_LAYERS
    possible = [layer for layer in LAYERS if kinds[layer] == "full_attention"]
    for layer in LAYERS:
        plans = Plans(recursion=Plan(Recursion(), (layer,), (1e-6,)))
        request = Request(PROMPTS[0], Sampling(max_tokens=3), plans=plans)
        if layer in possible:
            report = answers(engine, [request])[0].interventions["recursion"]
            assert report["layers"][str(layer)]["tokens"] == 2
            continue
        kind = KINDS.get(family, "linear_attention")
        with counted_passes(model) as passes, pytest.raises(ModelError, match=f"Layer `{layer}` .*`{kind}`") as error:
            answers(engine, [request])
        assert len(passes) == 0
        assert f"Use layers of {possible}" in str(error.value) if possible else "Use steering" in str(error.value)


def test_the_readme_has_the_table_of_what_is_tested() -> None:
    """So that it says no more and no less."""
    assert table() in PAGE.read_text()


def padded(prompts: list[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return prompts (B, longest), padded on the left, and their mask."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask
