"""Sparse autoencoders compute what a plain implementation of their definition does, and keep within the bound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from langnorm.errors import ModelError, OptionError
from langnorm.probes.sae import (
    ARCHITECTURES,
    CONFIG_FILE,
    WEIGHTS_FILE,
    SAEConfig,
    SparseAutoencoder,
    bound_on_norms,
    bound_on_states,
    load_sae,
    save_sae,
)
from tests.reference.sae import PlainSAE

D_IN, D_SAE = 5, 9
TOLERANCE = 1e-5


def random_sae(architecture: str, seed: int, *, is_centered: bool = True) -> SparseAutoencoder:
    """Return an SAE with random weights of all kinds."""
    config = SAEConfig(D_IN, D_SAE, architecture, 3 if architecture == "topk" else None, is_centered)
    sae = SparseAutoencoder(config).requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sae.named_parameters():
        weight.copy_(torch.randn(weight.shape, generator=generator))
        if name == "threshold":
            weight.abs_()
    return sae


def plain(sae: SparseAutoencoder, **options: Any) -> PlainSAE:
    """Return the plain implementation with the same weights."""
    weights = {name: weight.tolist() for name, weight in sae.named_parameters()}
    return PlainSAE(
        weights["W_enc"],
        weights["b_enc"],
        weights["W_dec"],
        weights["b_dec"],
        sae.config.architecture,
        sae.config.k or 0,
        weights.get("threshold"),
        sae.config.apply_b_dec_to_input,
        **options,
    )


def random_states(seed: int, scale: float = 1.0, num: int = 6) -> torch.Tensor:
    """Return some states."""
    return torch.randn(num, D_IN, generator=torch.Generator().manual_seed(seed)) * scale


CASES = st.tuples(st.sampled_from(ARCHITECTURES), st.integers(0, 10**6), st.booleans(), st.floats(1e-3, 1e3))


@settings(max_examples=40, deadline=None)
@given(CASES)
def test_encoding_and_decoding_are_those_of_the_definition(case: tuple[str, int, bool, float]) -> None:
    """Of all architectures, with and without the bias taken off, on states of any size."""
    architecture, seed, is_centered, scale = case
    sae = random_sae(architecture, seed, is_centered=is_centered)
    states, oracle = random_states(seed + 1, scale), plain(sae)
    activations = [oracle.encode(h) for h in states.tolist()]
    outputs = [oracle.decode(f) for f in activations]

    torch.testing.assert_close(sae.encode(states), torch.tensor(activations), rtol=1e-4, atol=1e-4 * (1 + scale))
    torch.testing.assert_close(sae(states), torch.tensor(outputs), rtol=1e-3, atol=1e-3 * (1 + scale))


@settings(max_examples=100, deadline=None)
@given(CASES)
def test_no_activation_is_above_the_bound(case: tuple[str, int, bool, float]) -> None:
    """On random states, and on those in the direction of an encoder's vector, where it is reached."""
    architecture, seed, is_centered, scale = case
    sae = random_sae(architecture, seed, is_centered=is_centered)
    shift = sae.b_dec if is_centered else torch.zeros(D_IN)
    directions = sae.W_enc.T / sae.W_enc.norm(dim=0)[:, None]
    states = torch.cat([random_states(seed + 1, scale), shift + scale * directions])
    tight, by_norm = bound_on_states(sae, states), bound_on_norms(sae, states.norm(dim=-1))
    plain_bound = torch.tensor([plain(sae).bound(h) for h in states.tolist()])

    torch.testing.assert_close(tight, plain_bound, rtol=1e-4, atol=1e-4 * (1 + scale))
    room = TOLERANCE * (1 + by_norm)
    assert (sae.encode(states) <= tight + room).all()
    assert (tight <= by_norm + room).all()
    reached = sae.pre_activations(states[-D_SAE:]).diagonal().relu()
    torch.testing.assert_close(reached, tight[-D_SAE:].diagonal(), rtol=1e-3, atol=1e-3 * (1 + scale))


def test_scaled_weights_are_for_scaled_states() -> None:
    """Activations and outputs are as many times larger as the states."""
    for architecture in ARCHITECTURES:
        sae, states = random_sae(architecture, 3), random_states(4)
        activations, outputs = sae.encode(states), sae(states)
        sae.scale_states(7)
        torch.testing.assert_close(sae.encode(states * 7), activations * 7)
        torch.testing.assert_close(sae(states * 7), outputs * 7)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folder_that_is_written_is_in_the_format_and_read_again(architecture: str, tmp_path: Path) -> None:
    """With SAELens' names in both files; float16 halves the weights' bytes."""
    sae, states = random_sae(architecture, 5), random_states(6)
    save_sae(sae, tmp_path / "new" / "folder")
    again = load_sae(tmp_path / "new" / "folder")
    written = json.loads((tmp_path / "new" / "folder" / CONFIG_FILE).read_text())
    weights = load_file(tmp_path / "new" / "folder" / WEIGHTS_FILE)

    assert again.config == sae.config
    assert torch.equal(again(states), sae(states))
    assert not any(weight.requires_grad for weight in again.parameters())
    assert written["architecture"] == architecture
    assert (written["d_in"], written["d_sae"], written["normalize_activations"]) == (D_IN, D_SAE, "none")
    assert weights["W_enc"].shape == (D_IN, D_SAE)
    assert weights["W_dec"].shape == (D_SAE, D_IN)

    save_sae(sae, tmp_path, dtype="float16")
    assert load_file(tmp_path / WEIGHTS_FILE)["W_enc"].dtype == torch.float16
    torch.testing.assert_close(load_sae(tmp_path).W_enc, sae.W_enc, rtol=1e-3, atol=1e-3)


def write_folder(folder: Path, sae: SparseAutoencoder, config: dict[str, Any]) -> None:
    """Write a folder as another program would."""
    save_file({name: weight.contiguous() for name, weight in sae.state_dict().items()}, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps({"d_in": D_IN, "d_sae": D_SAE, **config}))


def test_folders_of_older_and_newer_versions_are_read(tmp_path: Path) -> None:
    """Top-k as an activation function with its k, metadata under either name, and nothing of these."""
    sae = random_sae("topk", 7)
    old = {
        "architecture": "standard",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 3},
        "hook_name": "blocks.7.hook_resid_post",
    }
    write_folder(tmp_path, sae, old)
    assert load_sae(tmp_path).config.k == 3
    assert load_sae(tmp_path).config.metadata["hook_name"] == "blocks.7.hook_resid_post"

    write_folder(tmp_path, sae, {"architecture": "topk", "k": 3, "metadata": {"model_name": "m"}})
    assert load_sae(tmp_path).config.metadata == {"model_name": "m"}
    states = random_states(1)
    assert torch.equal(load_sae(tmp_path)(states), sae(states))

    write_folder(tmp_path, random_sae("standard", 8), {})
    assert load_sae(tmp_path).config.architecture == "standard"


def test_activations_in_units_of_decoder_rows_are_kept(tmp_path: Path) -> None:
    """`rescale_acts_by_decoder_norm` is folded into the weights, and nothing else changes."""
    sae, states = random_sae("topk", 9), random_states(10)
    write_folder(tmp_path, sae, {"architecture": "topk", "k": 3, "rescale_acts_by_decoder_norm": True})
    oracle, loaded = plain(sae, rescales=True), load_sae(tmp_path)
    activations = [oracle.encode(h) for h in states.tolist()]

    torch.testing.assert_close(loaded.encode(states), torch.tensor(activations), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        loaded(states), torch.tensor([oracle.decode(f) for f in activations]), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        ({"architecture": "gated"}, "gated"),
        ({"architecture": "topk", "k": 99}, "k=99"),
        ({"architecture": "topk"}, "k=None"),
        ({"architecture": "standard", "normalize_activations": "layer_norm"}, "layer_norm"),
        ({"d_sae": 10, "architecture": "standard"}, "not those that its cfg.json promises"),
        ({"d_in": "many", "architecture": "standard"}, "many"),
    ],
)
def test_what_is_not_known_is_refused(config: dict[str, Any], hint: str, tmp_path: Path) -> None:
    """With the folder and the reason."""
    write_folder(tmp_path, random_sae("standard", 11), config)
    with pytest.raises(ModelError, match=str(tmp_path)) as error:
        load_sae(tmp_path)
    assert hint in str(error.value)


def test_a_folder_without_an_sae_is_refused(tmp_path: Path) -> None:
    """No files, no JSON, and weights that are cut off."""
    with pytest.raises(ModelError, match="No such file"):
        load_sae(tmp_path / "nowhere")
    save_sae(random_sae("standard", 1), tmp_path)
    whole = (tmp_path / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(whole[:-10])
    with pytest.raises(ModelError, match="Give a folder with"):
        load_sae(tmp_path)
    (tmp_path / CONFIG_FILE).write_text("[]")
    (tmp_path / WEIGHTS_FILE).write_bytes(whole)
    with pytest.raises(ModelError, match="Give a folder with"):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    "options",
    [{"d_in": 0}, {"d_sae": 1.5}, {"architecture": "top-k"}, {"k": 0}, {"k": 10}, {"apply_b_dec_to_input": 1}],
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    """Before any weights are made."""
    with pytest.raises(OptionError, match="is not allowed"):
        SAEConfig(**{"d_in": D_IN, "d_sae": D_SAE, "k": 3, **options})
