"""Recursion, steering and suppression as their definitions read: greedy, one sequence, no KV cache, float32.

Independent of langnorm on purpose. Of every layer the inputs of pass 0 are kept, one per position: the model is
causal, so they never change. A position is run by calling the layer on all of them from scratch.

An extra pass, which reads the keys and values of pass 0 and writes none, needs no cache either: the state goes
behind the inputs as one more token, with the position of the last of them, and nobody attends to it, itself included.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel

if TYPE_CHECKING:
    from tests.reference.block_loop import BlockLoop

Draws = Callable[[str, int, int], float]
"""From `"steering"` or `"suppression"`, a step and a layer to a uniform number in [0, 1)."""

COUNTS = (
    "tokens",
    "triggered",
    "passes",
    "accepted",
    "rejected_by_growth",
    "rejected_by_blowup",
    "rejected_by_threshold",
)


@dataclass
class Outcome:
    """What was generated, and what was done on the way."""

    tokens: list[int] = field(default_factory=list)
    """All generated tokens. The last one is never run."""
    norms: list[list[float]] = field(default_factory=list)
    """A row per token that was run, a column per layer: norms of the states that flowed on."""
    recursion: dict[int, dict[str, int]] = field(default_factory=dict)
    """Of every layer with recursion, `COUNTS`."""
    injections: list[tuple[int, int, float]] = field(default_factory=list)
    """Index of the token, layer and best cosine, in order."""
    suppressed: dict[int, int] = field(default_factory=dict)
    """Of every layer with suppression, how many states were scaled down."""
    compared: dict[str, dict[int, float | None]] = field(default_factory=dict)
    """By intervention and layer, what the last token was compared with; None for nothing."""


class Decoder:
    """The layers of a model, Llama-like, Gemma 2 or OLMo 2, to be called on full sequences."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = copy.deepcopy(model).float().eval()
        # The other implementations may put a mask of their own in place of ours.
        self.model.set_attn_implementation("eager")
        self.config = self.model.config
        self.num_layers = len(self.model.model.layers)

    def embed(self, token_ids: list[int]) -> torch.Tensor:
        """Return the inputs (T, d) of layer 0. Gemma's embedding scales them itself."""
        return self.model.model.embed_tokens(torch.tensor(token_ids, device=self.model.device))

    def window(self, layer: int) -> int | None:
        """Return how many positions a token attends to, its own included; None for all of them."""
        kinds = getattr(self.config, "layer_types", None)
        if kinds is not None and kinds[layer] == "full_attention":
            return None
        return getattr(self.config, "sliding_window", None)  # without kinds, it is that of every layer

    def run(self, layer: int, states: torch.Tensor, *, num_extra: int = 0) -> torch.Tensor:
        """Return the outputs (T, d) of a layer for states (T, d).

        The states are those of positions 0, 1, 2 and so on. Behind them come `num_extra` ones of the last position,
        which are no keys to any token.
        """
        num_keys = len(states) - num_extra
        window = self.window(layer)
        positions = [*range(num_keys), *[num_keys - 1] * num_extra]
        mask = torch.full((len(states), len(states)), float("-inf"))  # (query, key)
        for query, position in enumerate(positions):
            first = 0 if window is None else max(0, position - window + 1)
            mask[query, first : position + 1] = 0.0

        hidden = states[None]  # (1, T, d)
        position_ids = torch.tensor([positions], device=states.device)
        outputs = self.model.model.layers[layer](
            hidden,
            attention_mask=mask[None, None].to(states.device),
            position_ids=position_ids,
            position_embeddings=self.model.model.rotary_emb(hidden, position_ids),
        )
        return outputs[0]

    def next_token(self, state: torch.Tensor) -> int:
        """Return the most likely token after the state (d,) that the last layer put out."""
        logits = self.model.lm_head(self.model.model.norm(state[None, None]))[0, 0]
        softcap = getattr(self.config, "final_logit_softcapping", None)
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        return int(logits.argmax())


class Running:
    """Thresholds of each token from the norms of the tokens before it: Q3 + k (Q3 - Q1), sinks left out."""

    def __init__(self, layers: tuple[int, ...], k: float = 1.5, warm_up: int = 16) -> None:
        self.k, self.warm_up = k, warm_up
        self.seen: dict[int, list[float]] = {layer: [] for layer in layers}
        self.last: dict[int, float | None] = dict.fromkeys(layers)

    def __iter__(self) -> Iterator[int]:
        """Go over the layers, as of a mapping."""
        return iter(self.seen)

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self.seen)

    def compare(self, layer: int, n: float) -> float:
        """Return tau for a token with this norm, which counts for the tokens after it."""
        seen = np.array(self.seen[layer])
        tau = math.inf
        if len(seen) >= self.warm_up:
            usual = seen[seen <= 10 * np.quantile(seen, 0.5, method="lower")]
            q1, q3 = np.quantile(usual, [0.25, 0.75])
            tau = float(q3 + self.k * (q3 - q1))
        self.last[layer] = tau if tau < math.inf else None
        if math.isfinite(n):
            self.seen[layer].append(n)
        return tau


Thresholds = Mapping[int, float] | Running


def tau_of(thresholds: Thresholds, layer: int, n: float) -> float:
    """Return what a token with the norm `n` is compared with."""
    return thresholds.compare(layer, n) if isinstance(thresholds, Running) else thresholds[layer]


def last_taus(thresholds: Thresholds) -> dict[int, float | None]:
    """Return what the last token was compared with at each layer; None for nothing."""
    return dict(thresholds.last if isinstance(thresholds, Running) else thresholds)


@dataclass
class Recursion:
    """Options of recursion, and what it counted per layer."""

    thresholds: Thresholds
    alpha: float = 1.0
    max_extra: int = 1
    growth_eps: float = 0.2
    blowup: float = 1.5
    eps: float = 1e-6
    block: int = 1

    def __post_init__(self) -> None:
        if self.thresholds and min(self.thresholds) - self.block + 1 < 0:
            msg = f"A block of `{self.block}` layers does not fit below layer `{min(self.thresholds)}`."
            raise ValueError(msg)
        self.counts = {layer: dict.fromkeys(COUNTS, 0) for layer in self.thresholds}

    def extra_pass(self, decoder: Decoder, inputs: list[torch.Tensor], layer: int, h: torch.Tensor) -> torch.Tensor:
        """Return `h` (d,) after the layers of the block that ends in `layer`, against their inputs of pass 0."""
        for index in range(layer - self.block + 1, layer + 1):
            h = decoder.run(index, torch.cat([inputs[index], h[None]]), num_extra=1)[-1]
        return h

    def apply(self, decoder: Decoder, inputs: list[torch.Tensor], layer: int, h: torch.Tensor) -> torch.Tensor:
        """Return the state that stands after at most `max_extra` extra passes of `h`, the output of pass 0."""
        counts = self.counts[layer]
        n = norm(h)
        tau = tau_of(self.thresholds, layer, n)
        active = tau < n < self.blowup * tau
        counts["tokens"] += 1
        counts["triggered"] += active
        for _ in range(self.max_extra):
            if not active:
                break
            h_new = self.extra_pass(decoder, inputs, layer, h)
            counts["passes"] += 1
            m = norm(h_new)
            growth = (m - n) / (n + self.eps)
            if growth < self.growth_eps:
                counts["rejected_by_growth"] += 1
                active = False
            elif m >= self.blowup * tau:
                counts["rejected_by_blowup"] += 1
                active = False
            elif m <= tau:
                counts["rejected_by_threshold"] += 1
                active = False
            else:
                counts["accepted"] += 1
                h = (1 - self.alpha) * h + self.alpha * h_new
                n = m  # of the pass, not of the blend
        return h


@dataclass
class Steering:
    """Options of steering, and the memory of the sequence per layer."""

    thresholds: Thresholds
    trigger: str = "peak"
    bank_size: int = 32
    low_k: int = 40
    gamma: float = 1.0
    p_inject: float = 0.2
    beta: float = 0.5
    cos_min: float = 0.5
    cooldown: int = 32

    def __post_init__(self) -> None:
        self.banks: dict[int, list[tuple[float, torch.Tensor]]] = {layer: [] for layer in self.thresholds}
        self.streaks = dict.fromkeys(self.thresholds, 0)
        self.cooldowns = dict.fromkeys(self.thresholds, 0)
        self.injections: list[tuple[int, int, float]] = []

    def apply(self, layer: int, h: torch.Tensor, step: int, draws: Draws) -> torch.Tensor:
        """Return `h`, moved towards a state of the bank where all conditions hold."""
        n = norm(h)
        tau = tau_of(self.thresholds, layer, n)
        if self.trigger == "peak":
            return self.at_peak(layer, h, step, n, tau)
        if n > tau:
            self.keep(layer, n, h)
        is_low = tau < math.inf and n < self.gamma * tau  # without a threshold nothing is low
        self.streaks[layer] = self.streaks[layer] + 1 if is_low else 0
        self.cooldowns[layer] = max(0, self.cooldowns[layer] - 1)

        u = draws("steering", step, layer)
        if self.streaks[layer] < self.low_k or self.cooldowns[layer] > 0 or u >= self.p_inject:
            return h
        best, v_best = self.most_similar(layer, h)
        if v_best is None or best < self.cos_min:
            return h
        self.streaks[layer] = 0
        self.cooldowns[layer] = self.cooldown
        self.injections.append((step, layer, best))
        return h + self.beta * (v_best - h)

    def at_peak(self, layer: int, h: torch.Tensor, step: int, n: float, tau: float) -> torch.Tensor:
        """Return a state above its threshold on the way to an earlier one; the state itself goes into the bank."""
        if n <= tau:
            return h
        best, v_best = self.most_similar(layer, h)
        self.keep(layer, n, h)
        if v_best is None or best < self.cos_min:
            return h
        self.injections.append((step, layer, best))
        return (1 - self.beta) * h + self.beta * v_best

    def keep(self, layer: int, n: float, h: torch.Tensor) -> None:
        """Put a state into the bank, which keeps those of highest norm."""
        bank = [*self.banks[layer], (n, h)]
        bank.sort(key=lambda entry: entry[0], reverse=True)
        self.banks[layer] = bank[: self.bank_size]

    def most_similar(self, layer: int, h: torch.Tensor) -> tuple[float, torch.Tensor | None]:
        """Return the best cosine to a state of the bank, and that state."""
        best, v_best = -2.0, None
        for _, v in self.banks[layer]:
            if cosine(v, h) > best:
                best, v_best = cosine(v, h), v
        return best, v_best


@dataclass
class Suppression:
    """Options of suppression, and what it counted per layer."""

    thresholds: Thresholds
    mode: str = "high"
    action: str = "mul"
    factor: float = 0.1
    mask: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        self.debts = dict.fromkeys(self.thresholds, 0)
        self.counts = dict.fromkeys(self.thresholds, 0)

    def is_hit(self, layer: int, step: int, draws: Draws | None, *, is_high: bool) -> bool:
        """Return whether a state is suppressed: a high one, or for each high one some state at random."""
        if self.mode == "high":
            return is_high
        self.debts[layer] += is_high
        if self.debts[layer] > 0 and draws("suppression", step, layer) < 0.25:
            self.debts[layer] -= 1
            return True
        return False

    def apply(self, layer: int, h: torch.Tensor, step: int, draws: Draws | None) -> torch.Tensor:
        """Return `h`, scaled down where it is suppressed."""
        n = norm(h)
        tau = tau_of(self.thresholds, layer, n) if self.mask is None or self.action == "clamp" else math.inf
        if self.mask is not None:
            is_hit = step in self.mask[sorted(self.debts).index(layer)]
        else:
            is_hit = self.is_hit(layer, step, draws, is_high=n > tau)
        if not is_hit:
            return h
        self.counts[layer] += 1
        return h * (self.factor if self.action == "mul" else min(1.0, (tau / 4) / n))


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompt_ids: list[int],
    num_tokens: int,
    *,
    recursion: dict[str, Any] | None = None,
    steering: dict[str, Any] | None = None,
    suppression: dict[str, Any] | None = None,
    loop: BlockLoop | None = None,
    draws: Draws | None = None,
) -> Outcome:
    """Return the greedy answer of exactly `num_tokens` tokens: an end token ends nothing.

    The prompt is run without interventions other than the block loop. Step 0 is the run of the first generated token.

    Args:
        model: A Qwen, Llama, Mistral, Gemma 2 or OLMo 2 model. It is left as it is.
        prompt_ids: The prompt.
        num_tokens: Length of the answer, at least 1.
        recursion: The fields of `Recursion`; None for none. So with the next two.
        steering: The fields of `Steering`.
        suppression: The fields of `Suppression`.
        loop: A block that is run several times; what it did is noted there.
        draws: The uniform draws, which steering and random suppression need.
    """
    decoder = Decoder(model)
    recursing = Recursion(**(recursion or {"thresholds": {}}))
    steerer = Steering(**(steering or {"thresholds": {}}))
    suppressor = Suppression(**(suppression or {"thresholds": {}}))
    outcome = Outcome(
        recursion=recursing.counts,
        injections=steerer.injections,
        suppressed=suppressor.counts,
    )

    inputs = []  # per layer (T, d): what pass 0 of each position read
    states = decoder.embed(list(prompt_ids))
    for layer in range(decoder.num_layers):
        inputs.append(states)
        states = decoder.run(layer, states)
        if loop and layer == loop.layers[-1]:
            rows = [loop.apply(decoder, inputs, at, h, is_prompt=True) for at, h in enumerate(states)]
            states = torch.stack(rows)
    outcome.tokens.append(decoder.next_token(states[-1]))

    for step in range(num_tokens - 1):
        h = decoder.embed(outcome.tokens[-1:])[0]  # (d,)
        norms = []
        for layer in range(decoder.num_layers):
            inputs[layer] = torch.cat([inputs[layer], h[None]])
            h = decoder.run(layer, inputs[layer])[-1]
            if loop and layer == loop.layers[-1]:
                h = loop.apply(decoder, inputs, len(inputs[layer]) - 1, h, is_prompt=False)
            if layer in recursing.thresholds:
                h = recursing.apply(decoder, inputs, layer, h)
            if layer in steerer.thresholds:
                h = steerer.apply(layer, h, step, draws)
            if layer in suppressor.thresholds:
                h = suppressor.apply(layer, h, step, draws)
            norms.append(norm(h))
        outcome.norms.append(norms)
        outcome.tokens.append(decoder.next_token(h))
    outcome.compared = {
        name: last_taus(intervention.thresholds)
        for name, intervention in {"recursion": recursing, "steering": steerer, "suppression": suppressor}.items()
    }
    return outcome


def norm(h: torch.Tensor) -> float:
    """Return `||h||_2`."""
    return float(h.double().square().sum().sqrt())


def cosine(v: torch.Tensor, h: torch.Tensor) -> float:
    """Return the cosine of the angle between two states."""
    return float((v.double() * h.double()).sum()) / (norm(v) * norm(h))
