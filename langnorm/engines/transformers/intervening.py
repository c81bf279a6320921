"""Carries out recursion, steering and suppression while a batch is generated, each row by its own plans.

At a layer the three follow each other in this order; each sees the norms that the one before left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from langnorm.engines.transformers.rerun import LayerRerunner
from langnorm.interventions.plan import Plan, Plans
from langnorm.interventions.recursion import RecursionRows
from langnorm.interventions.rows import maybe_any
from langnorm.interventions.steering import SteeringRows
from langnorm.interventions.suppression import SuppressionRows
from langnorm.norms.layers import layer_output

if TYPE_CHECKING:
    from torch import Tensor, nn

    from langnorm.interventions.options import Recursion


@dataclass(frozen=True, slots=True)
class _Actors:
    """What acts at one layer: recursing rows by their length of block, steered ones, suppressed ones."""

    recursing: list[RecursionRows]
    steered: SteeringRows | None
    suppressed: SuppressionRows | None


class _States:
    """The states (B, T, d) that a layer put out or that were made of them, and their norms once asked for."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._norms: Tensor | None = None

    @property
    def norms(self) -> Tensor:
        """Their norms (B, T), float32."""
        if self._norms is None:
            self._norms = _norms(self.tensor)
        return self._norms

    @property
    def known_norms(self) -> Tensor | None:
        """Their norms (B, T), if anybody asked for them."""
        return self._norms

    def with_last(self, last: Tensor) -> _States:
        """Return them with other states (B, d) at the last position."""
        return _States(torch.cat([self.tensor[:, :-1], last[:, None]], dim=1))


class Intervener:
    """Acts on the decoder layers of one batch.

    Args:
        decoder_layers: All decoder layers.
        plans: One per row.
        seeds: A (seed, sample) pair per row.
        prompt_lengths: Number of prompt tokens per row; padding stands before them.
    """

    def __init__(
        self,
        decoder_layers: nn.ModuleList,
        plans: Sequence[Plans],
        seeds: Sequence[tuple[int, int]],
        prompt_lengths: Sequence[int],
    ) -> None:
        self._decoder_layers = decoder_layers
        self._plans = plans
        self._seeds = seeds
        self._prompt_lengths = prompt_lengths
        self.layers = tuple(sorted({layer for plan in plans for layer in plan.layers}))
        self.norms: dict[int, Tensor] = {}
        """By layer, the norms (B, 1) of what flows on at the last position of this pass, where they are known."""
        self._rerunner = LayerRerunner(decoder_layers, sorted(self._rerun_layers()))
        self._actors: dict[int, _Actors] = {}  # by layer
        self._is_running = torch.ones(len(plans), dtype=torch.bool)
        self._step = -1  # of decoding; -1 in the prompt
        self._num_seen = 0  # positions of the prompt so far

    @property
    def is_needed(self) -> bool:
        """Whether any row has something to be done, or to be told that nothing could be."""
        return any(plan.all() for plan in self._plans)

    def _rerun_layers(self) -> set[int]:
        found = set()
        for plan in self._plans:
            if plan.recursion and plan.recursion.is_active:
                block = plan.recursion.options.block
                found |= {layer - back for layer in plan.recursion.layers for back in range(block)}
        return found

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Act inside the `with` block; hooks that are registered in it see what was made of the states."""
        handles = []
        try:
            with self._rerunner.attached():
                for layer in self.layers:
                    handles.append(self._decoder_layers[layer].register_forward_hook(self._hook(layer)))  # noqa: PERF401
                yield
        finally:
            for handle in handles:
                handle.remove()

    def next_step(self, has_ended: Tensor) -> None:
        """Go on to the next token, after each row's last one is known.

        Args:
            has_ended: Which rows have (B,).
        """
        self._step += 1
        self._is_running = ~has_ended

    def _hook(self, layer: int) -> Callable[..., Any]:
        def act(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            states = layer_output(output)  # (B, T, d)
            if layer not in self._actors:
                self._actors[layer] = self._actors_at(layer, states)
            after = self._act(layer, _States(states))
            if (norms := after.known_norms) is not None:
                self.norms[layer] = norms if norms.size(1) == 1 else norms[:, -1:]
            if after.tensor is states:
                return None
            return after.tensor if output is states else (after.tensor, *output[1:])

        return act

    def _actors_at(self, layer: int, states: Tensor) -> _Actors:
        """Return what acts at a layer whose states (B, T, d) are like these."""

        def chosen(name: str) -> dict[int, Plan[Any]]:
            plans = {row: getattr(plan, name) for row, plan in enumerate(self._plans)}
            return {row: plan for row, plan in plans.items() if plan and plan.is_active and layer in plan.layers}

        by_block: dict[int, dict[int, Plan[Recursion]]] = defaultdict(dict)
        for row, plan in chosen("recursion").items():
            by_block[plan.options.block][row] = plan
        recursing = [
            RecursionRows(list(plans), list(plans.values()), layer, states[:, -1]) for plans in by_block.values()
        ]

        def made(kind: Any, plans: dict[int, Plan[Any]]) -> Any:
            seeds = [self._seeds[row] for row in plans]
            return kind(list(plans), list(plans.values()), seeds, layer, states[:, -1]) if plans else None

        return _Actors(recursing, made(SteeringRows, chosen("steering")), made(SuppressionRows, chosen("suppression")))

    def _act(self, layer: int, states: _States) -> _States:
        actors, is_decoding = self._actors[layer], self._step >= 0
        for rows in actors.recursing:
            if is_decoding or rows.any_reads_prompt:
                states = self._recur(layer, rows, states)
        if is_decoding:
            for acting in (actors.steered, actors.suppressed):
                if acting is None:
                    continue
                last = states.tensor[:, -1]
                changed = acting.step(self._step, last, states.norms[:, -1], self._is_running)
                if changed is not last:
                    states = states.with_last(changed)
        elif layer == self.layers[-1]:
            self._num_seen += states.tensor.size(1)
        return states

    def _recur(self, layer: int, group: RecursionRows, states: _States) -> _States:
        """Return the states after recursion of the group's rows."""
        before = group.of(states.norms)  # (R, T)
        high = group.high(before)
        if not high.any():  # here the device is waited for: whether a layer is run again, only the host can decide
            return states
        active = high & group.in_bounds(before) & self._counted(group, before)
        group.count_triggered(active)
        block = range(layer - group.block + 1, layer + 1)
        tensor = states.tensor
        for number in range(group.most_extra):
            active = active & (number < group.max_extra)
            some = active.any(dim=1).nonzero().flatten()  # places in the group of rows with an active token
            if not len(some):
                break
            rows = group.rows[some]
            old = tensor if len(rows) == len(tensor) else tensor[rows]
            new = self._rerunner.run(block, old, rows, len(tensor))
            after = _norms(new)
            accepted = group.decide(active[some], before[some], after, some)
            if not maybe_any(accepted):
                break
            if tensor is states.tensor:
                tensor, before = tensor.clone(), before.clone()
            tensor[rows] = group.mixed(old, new, accepted, some)
            before[some] = torch.where(accepted, after, before[some])
            active = torch.zeros_like(active)
            active[some] = accepted
        return states if tensor is states.tensor else _States(tensor)

    def _counted(self, group: RecursionRows, norms: Tensor) -> Tensor:
        """Return which tokens of the group may be run again (R, T): those of rows that go on, and no padding."""
        if self._step >= 0:
            return group.running(self._is_running)[:, None].expand_as(norms)
        lengths = torch.tensor(self._prompt_lengths, device=norms.device)
        positions = self._num_seen + torch.arange(norms.size(1), device=norms.device)
        is_prompt = positions >= (lengths.max() - lengths[group.rows])[:, None]
        return is_prompt & group.reads_prompt

    def report(self, row: int, num_rows: int) -> dict[str, Any]:
        """Return what was done to a row of the batch, in plain JSON types, by the name of the intervention.

        Args:
            row: Its number.
            num_rows: How many of its generated tokens were run.
        """
        plan, found = self._plans[row], {}
        if plan.recursion:
            found["recursion"] = self._recursion_report(row, plan.recursion, num_rows)
        if plan.steering:
            pulls = [
                {"token": step, "layer": layer, "cosine": round(cosine, 6)}
                for layer, actors in self._actors.items()
                if actors.steered and row in actors.steered.places
                for step, cosine in actors.steered.pulls_of(row)
            ]
            pulls.sort(key=lambda pull: (pull["token"], pull["layer"]))
            found["steering"] = {"thresholds": plan.steering.thresholds_by_layer(), "injections": pulls}
        if plan.suppression:
            shrunk = {
                str(layer): actors.suppressed.num_shrunk(row)
                for layer, actors in self._actors.items()
                if actors.suppressed and row in actors.suppressed.places
            }
            found["suppression"] = {"thresholds": plan.suppression.thresholds_by_layer(), "suppressed": shrunk}
        return found

    def _recursion_report(self, row: int, plan: Plan[Recursion], num_rows: int) -> dict[str, Any]:
        num_tokens = num_rows + (0 if plan.options.only_decode else self._prompt_lengths[row])
        counts = {
            str(layer): {"tokens": num_tokens} | group.counts_of(row)
            for layer, actors in self._actors.items()
            for group in actors.recursing
            if row in group.places
        }
        extra = plan.options.block * sum(of_layer["passes"] for of_layer in counts.values())
        ordinary = num_tokens * len(self._decoder_layers)
        return {
            "thresholds": plan.thresholds_by_layer(),
            "layers": counts,
            "extra_layer_passes": extra,
            "share_of_layer_passes": round(extra / (extra + ordinary), 6) if ordinary else 0.0,
        }


def _norms(states: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(states, dim=-1, dtype=torch.float32)
    return norms
