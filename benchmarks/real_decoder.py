"""The forward pass of real models in plain PyTorch, without langnorm's engine, and what is kept of its distributions.

A test compares it with forward passes of transformers in float64.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor

TOP = 20  # most likely tokens whose mean log-probability is kept
TOKEN_VALUES = ("logprob", "entropy", "self_certainty", "top5", "top20", "mass5")
"""What is kept of the distribution of each token: see `distribution_values`."""
_ROOM = 64  # positions by which the caches grow


class Decoder:
    """The forward pass of a decoder of the Llama and Qwen families, step by step.

    Args:
        model: As transformers loads it; its weights are used as they are, on their device and in their dtype.
    """

    def __init__(self, model: Any) -> None:
        config = model.config
        weights: dict[str, Tensor] = dict(model.named_parameters())
        self.num_layers, self.eps = config.num_hidden_layers, config.rms_norm_eps
        self.num_heads, self.num_kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.num_heads
        self.embeddings, self.last_norm = weights["model.embed_tokens.weight"], weights["model.norm.weight"]
        self.output: Tensor = weights.get("lm_head.weight", self.embeddings)
        self.device, self.dtype = self.embeddings.device, self.embeddings.dtype
        rope = getattr(config, "rope_parameters", None) or {"rope_theta": config.rope_theta}
        frequencies = rope["rope_theta"] ** (-torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim)
        angles = torch.arange(8192, dtype=torch.float32)[:, None] * torch.cat([frequencies, frequencies])
        self.cos, self.sin = (x.to(self.device, self.dtype) for x in (angles.cos(), angles.sin()))
        self.layers = [self._layer(weights, f"model.layers.{i}.") for i in range(self.num_layers)]

    @staticmethod
    def _layer(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
        layer = {name.removeprefix(prefix): w.detach() for name, w in weights.items() if name.startswith(prefix)}
        parts = [f"self_attn.{x}_proj" for x in "qkv"]
        layer["qkv"] = torch.cat([layer.pop(f"{part}.weight") for part in parts])
        if f"{parts[0]}.bias" in layer:
            layer["qkv.bias"] = torch.cat([layer.pop(f"{part}.bias") for part in parts])
        layer["gate_up"] = torch.cat([layer.pop(f"mlp.{x}_proj.weight") for x in ("gate", "up")])
        return layer

    def _rms(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.size(-1),), weight, self.eps)

    @staticmethod
    def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits (B, V), float32, of residual streams (B, d) after the last layer (or, as a lens, any)."""
        return F.linear(self._rms(states, self.last_norm), self.output).float()

    def run(self, ids: Tensor, positions: Tensor, is_token: Tensor, cache: Cache) -> Tensor:
        """Run tokens (B, T) after those in the cache.

        Args:
            ids: The tokens.
            positions: Position of each in its own sequence (B, T).
            is_token: Which columns of the cache and of these tokens are no padding (B, columns).
            cache: Keys and values; it gains T columns.

        Returns:
            The residual stream (B, layers + 1, d) of the last token before the first and after each layer.
        """
        batch, length = ids.shape
        start, end = cache.end, cache.end + length
        cache.make_room(end)
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        sizes = [heads * self.head_dim for heads in (self.num_heads, self.num_kv_heads, self.num_kv_heads)]
        mask = is_token[:, None, None, :end]
        if length > 1:
            columns = torch.arange(end, device=ids.device)
            # Padding sees itself: a row of the softmax without any column would be no number.
            causal, itself = columns <= columns[start:, None], columns == columns[start:, None]
            mask = (mask & causal) | itself
        x = F.embedding(ids, self.embeddings)
        states = [x[:, -1]]
        for i, layer in enumerate(self.layers):
            h = F.linear(self._rms(x, layer["input_layernorm.weight"]), layer["qkv"], layer.get("qkv.bias"))
            q, k, v = (part.view(batch, length, -1, self.head_dim).transpose(1, 2) for part in h.split(sizes, -1))
            if "self_attn.q_norm.weight" in layer:
                q, k = self._rms(q, layer["self_attn.q_norm.weight"]), self._rms(k, layer["self_attn.k_norm.weight"])
            q = self._rotated(q, cos, sin)
            cache.keys[i][:, :, start:end] = self._rotated(k, cos, sin)
            cache.values[i][:, :, start:end] = v
            keys, values = cache.keys[i][:, :, :end], cache.values[i][:, :, :end]
            if length == 1:  # the heads of a group are rows of one product
                q = q.reshape(batch, self.num_kv_heads, -1, self.head_dim)
                weights = (q @ keys.transpose(-1, -2)).float() * self.head_dim**-0.5
                weights = weights.masked_fill_(~mask, -torch.inf).softmax(-1).to(self.dtype)
                heads = (weights @ values).reshape(batch, 1, -1)
            else:
                group = self.num_heads // self.num_kv_heads
                keys, values = (part.repeat_interleave(group, 1) for part in (keys, values))
                heads = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
                heads = heads.transpose(1, 2).reshape(batch, length, -1)
            x = x + F.linear(heads, layer["self_attn.o_proj.weight"])
            gate, up = F.linear(self._rms(x, layer["post_attention_layernorm.weight"]), layer["gate_up"]).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer["mlp.down_proj.weight"])
            states.append(x[:, -1])
        cache.end = end
        return torch.stack(states, 1)


class Cache:
    """Keys and values of each layer (B, KV heads, columns, head_dim), with room for columns to come."""

    def __init__(self, decoder: Decoder, batch: int) -> None:
        shape = (batch, decoder.num_kv_heads, 0, decoder.head_dim)
        empty = torch.empty(shape, device=decoder.device, dtype=decoder.dtype)
        self.keys, self.values = [empty] * decoder.num_layers, [empty] * decoder.num_layers
        self.end = 0

    def make_room(self, end: int) -> None:
        """Grow to at least so many columns, layer by layer."""
        if (missing := end - self.keys[0].size(2)) > 0:
            for part in (self.keys, self.values):
                for i, tensor in enumerate(part):
                    part[i] = F.pad(tensor, (0, 0, 0, missing + _ROOM))

    def take(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in this order; a row may be taken several times."""
        for part in (self.keys, self.values):
            for i, tensor in enumerate(part):
                part[i] = tensor[rows]


def distribution_values(logits: Tensor, chosen: Tensor) -> Tensor:
    """Return `TOKEN_VALUES` (B, 6) of distributions given as logits (B, V), in nats.

    The log-probability of the chosen token, the entropy, the divergence of the uniform distribution from this one, the
    mean log-probabilities of the 5 and of the 20 most likely tokens, and the probability of the 5.
    """
    vocabulary = logits.size(-1)
    log_total = logits.logsumexp(-1)
    mean_logprob = logits.mean(-1) - log_total
    probabilities = (logits - log_total[:, None]).exp_()
    entropy = log_total - torch.linalg.vecdot(probabilities, logits)
    top = logits.topk(min(TOP, vocabulary), -1).values - log_total[:, None]
    logprob = logits.gather(-1, chosen)[:, 0] - log_total
    self_certainty = -math.log(vocabulary) - mean_logprob
    five = top[:, :5]
    return torch.stack([logprob, entropy, self_certainty, five.mean(-1), top.mean(-1), five.exp().sum(-1)], dim=-1)


def lens_values(logits: Tensor, lens_logits: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence (B,), in bits, of two distributions given as logits (B, V)."""
    p, q = logits.log_softmax(-1), lens_logits.log_softmax(-1)
    middle = torch.logaddexp(p, q) - math.log(2)
    return ((p.exp() * (p - middle)).sum(-1) + (q.exp() * (q - middle)).sum(-1)) / (2 * math.log(2))
