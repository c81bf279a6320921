"""A cache with room for tokens to come holds what one without has, whoever keeps or puts back its states."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache

from langnorm.engines.transformers.growing_cache import GrowingTensor, growing_cache


def states(num_tokens: int, start: int = 0) -> torch.Tensor:
    """Returns states (2, 3, T, 4), each number once."""
    return torch.arange(start, start + 24 * num_tokens, dtype=torch.float32).reshape(2, 3, num_tokens, 4)


@given(moves=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), min_size=1, max_size=12))
def test_states_are_those_of_joining(moves) -> None:
    """Also where an earlier state is put back and goes on otherwise; none is ever changed."""
    tensor = GrowingTensor()
    kept = [(states(2), states(2).clone())]
    for number, (num_new, steps_back) in enumerate(moves):
        found, right = kept[max(0, len(kept) - 1 - steps_back)]
        new = states(num_new, start=1_000 * number)
        kept.append((tensor.join(found, new), torch.cat([right, new], dim=-2)))
        assert all(torch.equal(found, right) for found, right in kept)


def test_a_step_copies_no_earlier_states() -> None:
    """Over a thousand tokens, memory is taken anew some thirty times and not a thousand."""
    tensor, joined, places = GrowingTensor(), states(1), set()
    for number in range(1_000):
        joined = tensor.join(joined, states(1, start=number))
        places.add(joined.data_ptr())
    assert joined.size(-2) == 1_001
    assert len(places) < 40


def test_a_cache_is_as_that_of_transformers(model_of) -> None:
    """After the prompt and after further tokens, and when its sequences are chosen anew."""
    config = model_of("qwen3").config
    ours, plain = growing_cache(config), DynamicCache(config=config)
    for num_tokens in (5, 1, 1):
        for layer in range(config.num_hidden_layers):
            found = ours.update(states(num_tokens), states(num_tokens, 7), layer)
            right = plain.update(states(num_tokens), states(num_tokens, 7), layer)
            assert all(map(torch.equal, found, right))
    for cache in (ours, plain):
        cache.batch_select_indices(torch.tensor([1, 1, 0]))
        cache.crop(-2)
    new = states(1)[[0, 1, 0]]
    assert all(map(torch.equal, ours.update(new, new, 0), plain.update(new, new, 0)))
    assert ours.get_seq_length() == plain.get_seq_length() == 6
