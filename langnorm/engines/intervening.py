"""Carries out recursion, steering and suppression while a batch is generated, each row by its own plans.

At a layer the three follow each other in this order; each sees the norms that the one before left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from langnorm.engines.rerun import LayerRerunner
from langnorm.interventions.draws import draw
from langnorm.interventions.plan import Plan, Plans
from langnorm.interventions.recursion import COUNTS, RecursionRows
from langnorm.interventions.steering import Pulls, SteeringRows
from langnorm.interventions.suppression import SuppressionRows
from langnorm.norms.layers import layer_output

if TYPE_CHECKING:
    from torch import Tensor, nn

    from langnorm.interventions.options import Recursion

_STEPS_AHEAD = 64  # steps whose draws are made at once


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
        self._rerunner = LayerRerunner(decoder_layers, sorted(self._rerun_layers()))
        self._recursing: dict[int, list[RecursionRows]] = {}
        self._steered: dict[int, SteeringRows | None] = {}
        self._suppressed: dict[int, SuppressionRows | None] = {}
        self._counts: dict[int, dict[str, Tensor]] = {}  # by layer; one number per row
        self._pulls: dict[int, list[Pulls]] = defaultdict(list)  # by layer; one a step
        self._draws: dict[tuple[str, int], _Draws] = {}  # by kind and layer
        self._shrunk: dict[int, Tensor] = {}
        self._is_running: Tensor | None = None  # rows that have not ended; None for all
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
            changed = self._act(layer, states)
            if changed is states:
                return None
            return changed if output is states else (changed, *output[1:])

        return act

    def _act(self, layer: int, states: Tensor) -> Tensor:
        if layer not in self._recursing:
            self._prepare(layer, states)
        is_decoding = self._step >= 0
        for group in self._recursing[layer]:
            if is_decoding or group.any_reads_prompt:
                states = self._recur(layer, group, states)
        if not is_decoding:
            if layer == self.layers[-1]:
                self._num_seen += states.size(1)
            return states
        steered, suppressed = self._steered[layer], self._suppressed[layer]
        if steered:
            rows = steered.rows
            now = states[rows, -1]
            draws = self._draws["steering", layer].at(self._step)
            after, pulls = steered.step(now, _norms(now), draws, self._running(rows))
            self._pulls[layer].append(pulls)
            states = _with_last(states, rows, after)
        if suppressed:
            rows = suppressed.rows
            now = states[rows, -1]
            draws = self._draws["suppression", layer].at(self._step)
            after, is_shrunk = suppressed.step(now, _norms(now), draws, self._running(rows))
            self._shrunk[layer].index_add_(0, rows, is_shrunk.long())
            states = _with_last(states, rows, after)
        return states

    def _prepare(self, layer: int, states: Tensor) -> None:
        """Set up what this layer needs, on the device where its states are."""
        device, batch_size = states.device, states.size(0)

        def chosen(name: str) -> tuple[list[int], list[Any]]:
            plans = [(row, getattr(plan, name)) for row, plan in enumerate(self._plans)]
            found = [(row, plan) for row, plan in plans if plan and plan.is_active and layer in plan.layers]
            return [row for row, _ in found], [plan for _, plan in found]

        by_block: dict[int, list[int]] = defaultdict(list)
        rows, plans = chosen("recursion")
        for place, plan in enumerate(plans):
            by_block[plan.options.block].append(place)
        self._recursing[layer] = [
            RecursionRows([rows[p] for p in places], [plans[p] for p in places], layer, device)
            for places in by_block.values()
        ]
        self._counts[layer] = {name: torch.zeros(batch_size, dtype=torch.int64, device=device) for name in COUNTS}
        rows, plans = chosen("steering")
        self._steered[layer] = SteeringRows(rows, plans, layer, states[:, -1]) if rows else None
        self._draws["steering", layer] = _Draws([self._seeds[row] for row in rows], "steering", layer, device)
        rows, plans = chosen("suppression")
        self._suppressed[layer] = SuppressionRows(rows, plans, layer, device) if rows else None
        self._draws["suppression", layer] = _Draws([self._seeds[row] for row in rows], "suppression", layer, device)
        self._shrunk[layer] = torch.zeros(batch_size, dtype=torch.int64, device=device)

    def _recur(self, layer: int, group: RecursionRows, states: Tensor) -> Tensor:
        """Return the states (B, T, d) after recursion of the group's rows."""
        batch_size = states.size(0)
        before = _norms(states[group.rows])  # (R, T)
        active = group.triggered(before)
        if not active.any():  # here the device is waited for: whether a layer is run again, only the host can decide
            return states
        active &= self._counted(group, before)
        self._count(layer, "triggered", group.rows, active)
        block = range(layer - group.block + 1, layer + 1)
        is_changed = False
        for number in range(group.most_extra):
            active = active & (number < group.max_extra)
            some = active.any(dim=1).nonzero().flatten()  # places in the group of rows with an active token
            if not len(some):
                break
            if not is_changed:
                states, is_changed = states.clone(), True
            rows = group.rows[some]
            new = self._rerunner.run(block, states[rows], rows, batch_size)
            after = _norms(new)
            decision = group.decide(active[some], before[some], after, some)
            for name, tokens in (
                ("passes", active[some]),
                ("accepted", decision.accepted),
                ("rejected_by_growth", decision.by_growth),
                ("rejected_by_blowup", decision.by_blowup),
                ("rejected_by_threshold", decision.by_threshold),
            ):
                self._count(layer, name, rows, tokens)
            states[rows] = group.mixed(states[rows], new, decision.accepted, some)
            before[some] = torch.where(decision.accepted, after, before[some])
            active = torch.zeros_like(active)
            active[some] = decision.accepted
        return states

    def _counted(self, group: RecursionRows, norms: Tensor) -> Tensor:
        """Return which tokens of the group may be run again (R, T): those of rows that go on, and no padding."""
        if self._step >= 0:
            return self._running(group.rows)[:, None].expand_as(norms)
        lengths = torch.tensor(self._prompt_lengths, device=norms.device)
        positions = self._num_seen + torch.arange(norms.size(1), device=norms.device)
        is_prompt = positions >= (lengths.max() - lengths[group.rows])[:, None]
        return is_prompt & group.reads_prompt

    def _running(self, rows: Tensor) -> Tensor:
        if self._is_running is None:
            return torch.ones_like(rows, dtype=torch.bool)
        return self._is_running.to(rows.device)[rows]

    def _count(self, layer: int, name: str, rows: Tensor, tokens: Tensor) -> None:
        self._counts[layer][name].index_add_(0, rows, tokens.sum(dim=1))

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
            pulls = [pull for layer in plan.steering.layers for pull in self._pulls_of(row, layer)]
            pulls.sort(key=lambda pull: (pull["token"], pull["layer"]))
            found["steering"] = {"thresholds": plan.steering.thresholds_by_layer(), "injections": pulls}
        if plan.suppression:
            shrunk = {str(i): int(self._shrunk[i][row]) for i in plan.suppression.layers if i in self._shrunk}
            found["suppression"] = {"thresholds": plan.suppression.thresholds_by_layer(), "suppressed": shrunk}
        return found

    def _pulls_of(self, row: int, layer: int) -> list[dict[str, Any]]:
        steered, pulls = self._steered.get(layer), self._pulls[layer]
        if not steered or not pulls:
            return []
        place = steered.rows.tolist().index(row)
        is_pulled = torch.stack([pull.is_pulled[place] for pull in pulls])  # (steps,)
        return [
            {"token": step, "layer": layer, "cosine": round(pulls[step].cosine[place].item(), 6)}
            for step in is_pulled.nonzero().flatten().tolist()
        ]

    def _recursion_report(self, row: int, plan: Plan[Recursion], num_rows: int) -> dict[str, Any]:
        num_tokens = num_rows + (0 if plan.options.only_decode else self._prompt_lengths[row])
        counts = {
            str(layer): {"tokens": num_tokens} | {name: int(self._counts[layer][name][row]) for name in COUNTS}
            for layer in plan.layers
            if layer in self._counts
        }
        extra = plan.options.block * sum(of_layer["passes"] for of_layer in counts.values())
        ordinary = num_tokens * len(self._decoder_layers)
        return {
            "thresholds": plan.thresholds_by_layer(),
            "layers": counts,
            "extra_layer_passes": extra,
            "share_of_layer_passes": round(extra / (extra + ordinary), 6) if ordinary else 0.0,
        }


class _Draws:
    """The draws of some rows at one layer, handed to the device for many steps at a time."""

    def __init__(self, seeds: Sequence[tuple[int, int]], kind: str, layer: int, device: torch.device) -> None:
        self._seeds, self._kind, self._layer, self._device = seeds, kind, layer, device
        self._ahead: list[Tensor] = []

    def at(self, step: int) -> Tensor:
        """Return the numbers of one step (R,), uniform in [0, 1); steps are asked for in order, from 0."""
        number = step % _STEPS_AHEAD
        if number == 0:
            table = [
                [draw(seed, sample, self._kind, step + ahead, self._layer) for seed, sample in self._seeds]
                for ahead in range(_STEPS_AHEAD)
            ]
            self._ahead = list(torch.tensor(table, dtype=torch.float32, device=self._device))
        return self._ahead[number]


def _norms(states: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(states, dim=-1, dtype=torch.float32)
    return norms


def _with_last(states: Tensor, rows: Tensor, last: Tensor) -> Tensor:
    """Return the states (B, T, d) with those of the last position replaced in some rows."""
    states = states.clone()
    states[rows, -1] = last
    return states
