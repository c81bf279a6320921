"""A sparse autoencoder (SAE) of hidden states, the bound that norms put on its features, and SAELens' folder format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from langnorm.checks import check_choice, check_flag, check_integer
from langnorm.errors import ModelError, OptionError

ARCHITECTURES = ("standard", "topk", "jumprelu")
"""`standard` is ReLU; `topk` keeps the k largest of it; `jumprelu` keeps what is above a threshold of each feature."""
CONFIG_FILE, WEIGHTS_FILE = "cfg.json", "sae_weights.safetensors"
_FIELDS = (  # of `cfg.json`; what else is there, older versions had instead of `metadata`
    *("architecture", "d_in", "d_sae", "k", "apply_b_dec_to_input", "rescale_acts_by_decoder_norm", "dtype", "device"),
    *("normalize_activations", "reshape_activations", "metadata", "meta"),
)
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.float16, torch.bfloat16)}


@dataclass(frozen=True, slots=True)
class SAEConfig:
    """What an SAE is, by the names of SAELens' `cfg.json`.

    Attributes:
        d_in: Width of the hidden states.
        d_sae: Number of features.
        architecture: One of `ARCHITECTURES`.
        k: Number of features that `topk` keeps of each state.
        apply_b_dec_to_input: Whether the decoder's bias is taken off a state before it is encoded.
        metadata: Whatever else is known, such as `model_name` and `hook_name`, in plain JSON types.
    """

    d_in: int
    d_sae: int
    architecture: str = "topk"
    k: int | None = 64
    apply_b_dec_to_input: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_integer("d_in", self.d_in, low=1)
        check_integer("d_sae", self.d_sae, low=1)
        check_choice("architecture", self.architecture, ARCHITECTURES)
        check_flag("apply_b_dec_to_input", self.apply_b_dec_to_input)
        if self.architecture == "topk":
            check_integer("k", self.k, low=1, high=self.d_sae)


class SparseAutoencoder(nn.Module):
    """`f(h) = ReLU(W_enc (h - b_dec) + b_enc)`, of which few features are active, and `h ~ W_dec f + b_dec`.

    The weights have SAELens' names and shapes: `W_enc` (d_in, d_sae), `b_enc` (d_sae,), `W_dec` (d_sae, d_in) and
    `b_dec` (d_in,); `threshold` (d_sae,) with `jumprelu`. A new one has random unit vectors as decoder rows, and their
    transpose as encoder.

    Args:
        config: What it is.
        seed: Of the random vectors.
    """

    def __init__(self, config: SAEConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        rows = torch.randn(config.d_sae, config.d_in, generator=torch.Generator().manual_seed(seed))
        rows /= rows.norm(dim=1, keepdim=True)
        self.W_dec = nn.Parameter(rows)
        self.W_enc = nn.Parameter(rows.T.contiguous())
        self.b_enc = nn.Parameter(torch.zeros(config.d_sae))
        self.b_dec = nn.Parameter(torch.zeros(config.d_in))
        if config.architecture == "jumprelu":
            self.threshold = nn.Parameter(torch.zeros(config.d_sae))

    def pre_activations(self, states: Tensor) -> Tensor:
        """Return `W_enc (h - b_dec) + b_enc` (..., d_sae) of hidden states (..., d_in)."""
        centered = states.to(self.W_enc.dtype)
        if self.config.apply_b_dec_to_input:
            centered = centered - self.b_dec
        pre_activations: Tensor = centered @ self.W_enc + self.b_enc
        return pre_activations

    def activate(self, pre_activations: Tensor) -> Tensor:
        """Return the activations (..., d_sae), zero where a feature is not active."""
        if self.config.architecture == "topk":
            top = pre_activations.topk(self.config.k or 1, dim=-1, sorted=False)
            return torch.zeros_like(pre_activations).scatter(-1, top.indices, top.values.relu())
        if self.config.architecture == "jumprelu":
            return pre_activations.relu() * (pre_activations > self.threshold)
        return pre_activations.relu()

    def encode(self, states: Tensor) -> Tensor:
        """Return the features' activations (..., d_sae) on hidden states (..., d_in)."""
        return self.activate(self.pre_activations(states))

    def decode(self, activations: Tensor) -> Tensor:
        """Return the hidden states (..., d_in) that activations (..., d_sae) stand for."""
        states: Tensor = activations @ self.W_dec + self.b_dec
        return states

    def forward(self, states: Tensor) -> Tensor:
        """Return hidden states (..., d_in) as they come out of their features."""
        return self.decode(self.encode(states))

    @torch.no_grad()
    def scale_states(self, factor: float) -> None:
        """Change the weights so that states `factor` times as large have activations `factor` times as large."""
        for bias in (self.b_enc, self.b_dec):
            bias.mul_(factor)
        if self.config.architecture == "jumprelu":
            self.threshold.mul_(factor)


@torch.no_grad()
def bound_on_states(sae: SparseAutoencoder, states: Tensor) -> Tensor:
    """Return `max(0, ||w_i|| ||h - b_dec|| + b_enc_i)` (..., d_sae): activations on states (..., d_in) are not higher.

    `w_i` is the encoder's vector of feature i (Cauchy-Schwarz). Float32 rounds, so compare with a tolerance of 1e-5.
    """
    centered = states.float() - (sae.b_dec.float() if sae.config.apply_b_dec_to_input else 0)
    norms = centered.norm(dim=-1, keepdim=True)
    bound: Tensor = (norms * sae.W_enc.float().norm(dim=0) + sae.b_enc.float()).relu()
    return bound


@torch.no_grad()
def bound_on_norms(sae: SparseAutoencoder, norms: Tensor) -> Tensor:
    """Return `||w_i|| (||h|| + ||b_dec||) + max(0, b_enc_i)` (..., d_sae), which only the norms (...) decide.

    It is never below `bound_on_states`.
    """
    bias = sae.b_dec.float().norm() if sae.config.apply_b_dec_to_input else 0
    bound: Tensor = (norms.float()[..., None] + bias) * sae.W_enc.float().norm(dim=0) + sae.b_enc.float().relu()
    return bound


def save_sae(sae: SparseAutoencoder, folder: Path, *, dtype: str = "float32") -> None:
    """Write an SAE as SAELens does: `cfg.json` and `sae_weights.safetensors` in a folder, which is made.

    Args:
        sae: The SAE.
        folder: Where.
        dtype: `"float32"`, `"float16"` or `"bfloat16"`.
    """
    check_choice("dtype", dtype, _DTYPES)
    config = sae.config
    written: dict[str, Any] = {
        "architecture": config.architecture,
        "d_in": config.d_in,
        "d_sae": config.d_sae,
        "dtype": dtype,
        "device": "cpu",
        "apply_b_dec_to_input": config.apply_b_dec_to_input,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": dict(config.metadata),
    }
    if config.architecture == "topk":
        written |= {"k": config.k, "rescale_acts_by_decoder_norm": False}
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().to("cpu", _DTYPES[dtype]).contiguous() for name, weight in sae.named_parameters()}
    save_file(weights, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def load_sae(folder: Path, *, device: str = "cpu") -> SparseAutoencoder:
    """Return the SAE of a folder in SAELens' format, in float32.

    Args:
        folder: With `cfg.json` and `sae_weights.safetensors`.
        device: Where its weights go.

    Raises:
        ModelError: The files are not there, are damaged, or are of a kind of SAE that langnorm does not know.
    """
    try:
        stored = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        weights = {name: weight.float() for name, weight in load_file(folder / WEIGHTS_FILE).items()}
        config = _read_config(stored)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        msg = (
            f"`{folder}` has no SAE in SAELens' format ({reason}). Give a folder with {CONFIG_FILE} and {WEIGHTS_FILE}."
        )
        raise ModelError(msg) from error
    if "scaling_factor" in weights:
        weights["W_dec"] = weights["W_dec"] * weights.pop("scaling_factor")[:, None]
    if stored.get("rescale_acts_by_decoder_norm"):  # then activations are counted in units of decoder rows of length 1
        lengths = weights["W_dec"].norm(dim=1)
        weights["W_enc"], weights["b_enc"] = weights["W_enc"] * lengths, weights["b_enc"] * lengths
        weights["W_dec"] = weights["W_dec"] / lengths[:, None]
    sae = SparseAutoencoder(config)
    try:
        sae.load_state_dict(weights)
    except RuntimeError as error:
        msg = f"The weights in `{folder}` are not those that its {CONFIG_FILE} promises. Fetch the folder again."
        raise ModelError(msg) from error
    return sae.to(device).requires_grad_(requires_grad=False)


def _read_config(stored: Mapping[str, Any]) -> SAEConfig:
    """Return the config that a `cfg.json` of an older or newer SAELens means; it raises for what is not known."""
    architecture = stored.get("architecture", "standard")
    arguments = stored.get("activation_fn_kwargs") or {}
    is_old_top_k = stored.get("activation_fn_str", stored.get("activation_fn")) == "topk"
    architecture = "topk" if is_old_top_k and architecture == "standard" else architecture
    for name, allowed in (("normalize_activations", "none"), ("reshape_activations", "none")):
        if (value := stored.get(name, allowed)) != allowed:
            msg = f"`{name}` is `{value}`, and langnorm knows only `{allowed}`"
            raise OptionError(msg)
    older = {name: value for name, value in stored.items() if name not in _FIELDS}
    return SAEConfig(
        stored["d_in"],
        stored["d_sae"],
        architecture,
        stored.get("k", arguments.get("k")) if architecture == "topk" else None,
        stored.get("apply_b_dec_to_input", True),
        {**older, **(stored.get("metadata") or stored.get("meta") or {})},
    )
