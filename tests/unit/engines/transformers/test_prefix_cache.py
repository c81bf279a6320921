"""The prefix cache knows the longest beginning that a recent sequence had, and keeps within its memory."""

from __future__ import annotations

import gc
import os
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.engines.transformers.prefix_cache import SHORTEST_PREFIX, PrefixCache, num_common

HEAD = tuple(range(100, 100 + SHORTEST_PREFIX))
"""Makes every sequence long enough."""


class Values:
    """What was computed for some tokens: the tokens themselves, two bytes each."""

    def __init__(self, tokens: tuple[int, ...]) -> None:
        self.tokens = tokens

    @property
    def num_bytes(self) -> int:
        """Two bytes for each token."""
        return 2 * len(self.tokens)

    def narrow(self, start: int, end: int) -> Values:
        """Returns those of some tokens."""
        return Values(self.tokens[start:end])

    def copy(self) -> Values:
        """Returns the same again."""
        return Values(self.tokens)


def add(cache: PrefixCache[Values], tokens: tuple[int, ...]) -> None:
    """Adds a sequence."""
    cache.tree(0).add(tokens, lambda start, end: Values(tokens[start:end]))


def found(cache: PrefixCache[Values], tokens: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the beginning of a sequence that the cache knows."""
    return tuple(token for part in cache.tree(0).find(tokens) for token in part.tokens)


sequences = st.lists(st.lists(st.integers(0, 2), max_size=8).map(lambda tail: (*HEAD, *tail)), min_size=1, max_size=20)


@given(sequences, sequences)
def test_the_longest_common_beginning_is_found(added, asked) -> None:
    """Of all sequences that were added, whatever they have in common with each other."""
    cache = PrefixCache[Values](10**6)
    for tokens in added:
        add(cache, tokens)
    for tokens in asked:
        assert found(cache, tokens) == tokens[: max(num_common(tokens, other) for other in added)]


@given(sequences)
def test_common_beginnings_are_kept_once(added) -> None:
    """Tokens and bytes are those of the different beginnings."""
    cache = PrefixCache[Values](10**6)
    for tokens in added:
        add(cache, tokens)
    beginnings = {tokens[:end] for tokens in added for end in range(1, len(tokens) + 1)}
    assert cache.num_tokens == len(beginnings)
    assert cache.num_bytes == 2 * len(beginnings)


@given(sequences, st.integers(0, 60))
def test_memory_is_bounded_and_the_last_sequence_stays(added, spare) -> None:
    """What was added last is known as far as the memory reaches; all that is found is right."""
    most = 2 * SHORTEST_PREFIX + spare
    cache = PrefixCache[Values](most)
    for tokens in added:
        add(cache, tokens)
        assert cache.num_bytes <= most
        assert found(cache, tokens) == tokens[: most // 2]
    for tokens in added:
        known = found(cache, tokens)
        assert known == tokens[: len(known)]


def test_what_was_not_used_for_longest_is_forgotten_first() -> None:
    """Finding a sequence is a use of it; the beginning that others share outlives its ends."""
    cache = PrefixCache[Values](2 * (len(HEAD) + 6))
    first, second, third = ((*HEAD, i, i, i) for i in range(3))
    add(cache, first)
    add(cache, second)
    assert found(cache, first) == first
    add(cache, third)
    assert found(cache, second) == HEAD
    assert found(cache, first) == first
    assert found(cache, third) == third


def test_short_beginnings_are_not_worth_it() -> None:
    """Neither kept nor found."""
    cache = PrefixCache[Values](10**6)
    add(cache, HEAD[:-1])
    assert cache.num_tokens == 0
    add(cache, HEAD)
    assert found(cache, (*HEAD[:-1], 0)) == ()


def test_nothing_is_kept_without_memory() -> None:
    """Or with less than a token takes."""
    for most in (0, 1):
        cache = PrefixCache[Values](most)
        add(cache, HEAD)
        assert (cache.num_bytes, found(cache, HEAD)) == (0, ())


def test_clearing_forgets_all_that_calls_had_begun_before() -> None:
    """What a batch under way adds goes with it, and the memory is free at once."""
    cache = PrefixCache[Values](10**6)
    add(cache, HEAD)
    under_way = cache.tree(0)
    known = weakref.ref(under_way.find(HEAD)[0])
    assert cache.clear() == 2 * len(HEAD)
    under_way.add((*HEAD, 1), lambda start, end: Values((*HEAD, 1)[start:end]))
    assert (cache.num_bytes, cache.num_tokens, found(cache, HEAD)) == (0, 0, ())
    del under_way
    gc.collect()
    assert known() is None


def test_another_version_forgets_all() -> None:
    """What was computed with other weights is of no use."""
    cache = PrefixCache[Values](10**6)
    add(cache, HEAD)
    assert cache.tree(1).find(HEAD) == []
    assert cache.num_bytes == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_starts_without() -> None:
    """Its parent may have been amid a change."""
    cache = PrefixCache[Values](10**6)
    add(cache, HEAD)
    child = os.fork()
    if child == 0:
        os._exit(cache.num_bytes != 0)
    assert os.waitpid(child, 0)[1] == 0
    assert cache.num_bytes == 2 * len(HEAD)


@pytest.mark.parametrize("is_alike", [True, False])
def test_work_is_linear_in_the_length(is_alike) -> None:
    """Tokens that are looked at, for a sequence that is known and for one that ends in the middle of another."""

    class Counted(int):
        looks = 0

        def __ne__(self, other: object) -> bool:
            Counted.looks += 1
            return int(self) != other

        __hash__ = int.__hash__

    def looks(length: int) -> int:
        cache = PrefixCache[Values](10**9)
        tokens = tuple(map(Counted, range(length)))
        add(cache, tokens)
        Counted.looks = 0
        add(cache, tokens if is_alike else (*tokens[: length // 2], Counted(-1)))
        return Counted.looks

    assert looks(4000) <= 4.5 * looks(1000)
