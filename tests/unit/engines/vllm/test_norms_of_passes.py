"""The norms of passes come to their sequences and positions, however rows are mixed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from langnorm.engines.vllm.order import Order
from langnorm_vllm import pass_norms
from langnorm_vllm.batch_view import BatchView
from langnorm_vllm.layers import ResidualStream
from langnorm_vllm.norm_store import NormStore
from langnorm_vllm.pass_norms import PassNorms
from langnorm_vllm.roster import ObservedSequence, Roster

NUM_LAYERS, WIDTH = 4, 8


class Passes:
    """Makes passes whose states tell of position, sequence and layer."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.norms = PassNorms(ResidualStream(rule), NUM_LAYERS, 32, torch.device("cpu"))
        self.store = NormStore()

    def run(self, roster: Roster, firsts: list[int], lengths: list[int], plus: float = 0.0) -> None:
        """Makes one; the states of each sequence are those of its place in the roster."""
        starts = np.cumsum([0, *lengths])
        self.norms.set_layers(sorted(roster.layers))
        kept = roster.kept(BatchView(roster.request_ids, np.array(firsts), starts))
        tokens = [(place, at + i) for place, at in enumerate(firsts) for i in range(lengths[place])]
        for layer in sorted(roster.layers):
            scale = torch.tensor([norm_of(place, position, layer) + plus for place, position in tokens])
            states = torch.nn.functional.one_hot(torch.arange(len(tokens)) % WIDTH, WIDTH) * scale[:, None]
            parts = (states,) if self.rule == "alone" else (0.25 * states, 0.75 * states)
            self.norms.note(layer, parts if len(parts) > 1 else states)
            for part in parts:
                part.fill_(-1.0)  # as the next layer does
        if kept:
            self.store.keep(self.norms.take(kept.rows), self.norms.layers, kept, roster.owners)


def norm_of(place: int, position: int, layer: int) -> float:
    """Returns the norm of a token."""
    return 1000.0 * (place + 1) + 10.0 * position + layer


def sequence(num_prompt: int, layers: tuple[int, ...], *, has_prompt: bool = False) -> ObservedSequence:
    """Returns a sequence."""
    return ObservedSequence(Order(key="", num_prompt_tokens=num_prompt, layers=layers, records_prompt=has_prompt))


@pytest.mark.parametrize("rule", ["sum", "alone"])
@pytest.mark.parametrize("is_small", [True, False])
def test_mixed_passes(monkeypatch, rule, is_small) -> None:
    """Prompts in chunks beside answers, sequences of others, and tokens that are run again."""
    monkeypatch.setattr(pass_norms, "_MOST_BYTES", 2**20 if is_small else 4)
    passes = Passes(rule)
    ours, with_prompt = sequence(3, (1, 3)), sequence(4, (2,), has_prompt=True)
    roster = Roster(["a", "other", "b"], {"a": ours, "b": with_prompt})
    passes.run(roster, [0, 7, 0], [3, 1, 2])  # half of the prompt of b; of that of a, nothing is kept
    passes.run(roster, [3, 8, 2], [1, 1, 2])
    passes.run(roster, [4, 9, 4], [1, 1, 1], plus=0.5)
    passes.run(roster, [4, 9, 5], [2, 2, 1])  # a is run again from its position 4
    passes.run(Roster(["other"], {}), [9], [1])
    passes.store.flush()
    assert ours.norms is not None
    assert with_prompt.norms is not None
    expected = [[norm_of(0, position, layer) for layer in (1, 3)] for position in (3, 4, 5)]
    np.testing.assert_allclose(ours.norms.rows(), expected, rtol=1e-6)
    found = with_prompt.norms.rows()[:, 0]
    np.testing.assert_allclose(found, [norm_of(2, i, 2) + 0.5 * (i == 4) for i in range(6)], rtol=1e-6)


def test_other_layers_meanwhile() -> None:
    """A sequence with other layers comes while rows of the first wait."""
    passes = Passes("sum")
    first, second = sequence(1, (3,)), sequence(1, (0, 2))
    passes.run(Roster(["a"], {"a": first}), [1], [1])
    passes.run(Roster(["a", "b"], {"a": first, "b": second}), [2, 1], [1, 1])
    passes.run(Roster(["a"], {"a": first}), [4], [1])
    passes.store.flush()
    assert first.norms is not None
    assert second.norms is not None
    seen = [norm_of(0, 1, 3), norm_of(0, 2, 3), np.nan, norm_of(0, 4, 3)]
    np.testing.assert_allclose(first.norms.rows()[:, 0], seen, rtol=1e-6)
    np.testing.assert_allclose(second.norms.rows(), [[norm_of(1, 1, 0), norm_of(1, 1, 2)]], rtol=1e-6)
