"""Remembers what was computed for the tokens of recent sequences, to start others from their longest common beginning.

Sequences are kept in a radix tree: a node has some consecutive tokens and what was computed for them, its children are
the ways in which sequences went on. So a history that many sequences share is kept once. A sequence is used whenever it
is found or added; when memory is full, what was not used for longest is forgotten, from its end on.
"""

from __future__ import annotations

import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

from langnorm.checks import check_integer

SHORTEST_PREFIX = 64
"""Tokens below which running them again costs about as little as looking after them."""


def check_prefix_cache_bytes(num_bytes: object) -> None:
    """Raise `OptionError` unless this is how much memory a prefix cache may take: a number of bytes, or None."""
    if num_bytes is not None:
        check_integer("prefix_cache_bytes", num_bytes, low=0, allowed="a number of bytes, 0 to keep nothing, or None")


class Computed(Protocol):
    """What was computed for consecutive tokens."""

    @property
    def num_bytes(self) -> int:
        """Memory that it takes."""

    def narrow(self, start: int, end: int) -> Self:
        """Return what was computed for tokens `start` to `end`; it may share memory with the whole."""

    def copy(self) -> Self:
        """Return the same in memory of its own."""


Values = TypeVar("Values", bound=Computed)


class PrefixCache(Generic[Values]):
    """What was computed for recent sequences, within a number of bytes.

    One thread at a time may use its tree; any thread may clear it and read the numbers.

    Args:
        max_bytes: Most memory that it takes; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._version: Hashable = None
        self._tree: PrefixTree[Values] = PrefixTree(max_bytes)
        _prefix_caches.add(self)

    @property
    def num_bytes(self) -> int:
        """Memory that it takes now."""
        return self._tree.num_bytes

    @property
    def num_tokens(self) -> int:
        """Number of tokens that it knows, those of common beginnings counted once."""
        return self._tree.num_tokens

    def clear(self) -> int:
        """Forget all sequences, those of a batch under way too, and return how many bytes they took."""
        # Replaced at once: whoever uses the old tree is not hurt, and what is added to it is gone with it.
        tree, self._tree = self._tree, PrefixTree(self.max_bytes)
        return tree.num_bytes

    def tree(self, version: Hashable) -> PrefixTree[Values]:
        """Return the sequences, after forgetting them if they were computed under another version (of the weights)."""
        if version != self._version:
            self.clear()
            self._version = version
        return self._tree


class _Node(Generic[Values]):
    """Some consecutive tokens of all sequences that begin alike."""

    __slots__ = ("children", "parent", "tokens", "values")

    def __init__(self, parent: _Node[Values] | None, tokens: tuple[int, ...], values: Values | None) -> None:
        self.parent = parent
        self.tokens = tokens
        self.values = values  # None for the root, which has no tokens
        self.children: dict[int, _Node[Values]] = {}  # by their first token


class PrefixTree(Generic[Values]):
    """Sequences by their beginnings; only one thread at a time may use it.

    Args:
        max_bytes: Most memory that it takes.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._root: _Node[Values] = _Node(None, (), None)
        # By last use, the longest ago first. A node is used together with all before it, from its end to the root, so
        # the first one never has children.
        self._by_use: OrderedDict[_Node[Values], None] = OrderedDict()
        self.num_bytes = 0
        self.num_tokens = 0

    def find(self, tokens: Sequence[int]) -> list[Values]:
        """Return what is known of the longest beginning of `tokens`, in parts; nothing where that is short."""
        path, num_last = self._walk(tokens)
        if sum(len(node.tokens) for node in path[:-1]) + num_last < SHORTEST_PREFIX:
            return []
        self._use(path)
        parts = [node.values for node in path if node.values is not None]
        parts[-1] = parts[-1].narrow(0, num_last)
        return parts

    def add(self, tokens: Sequence[int], get_values: Callable[[int, int], Values]) -> None:
        """Remember a sequence, its beginning where it is too long for the memory; a short one is not worth it.

        Args:
            tokens: Its tokens.
            get_values: Returns what was computed for tokens `start` to `end`; it is copied.
        """
        if len(tokens) < SHORTEST_PREFIX:
            return
        bytes_per_token = get_values(0, 1).num_bytes
        tokens = tuple(tokens[: self._max_bytes // bytes_per_token])
        path, num_last = self._walk(tokens)
        if num_last < len(path[-1].tokens):
            path[-1] = self._split(path[-1], num_last)
        start = sum(len(node.tokens) for node in path)
        self._use(path)
        num_new = (len(tokens) - start) * bytes_per_token
        while self.num_bytes + num_new > self._max_bytes:
            self._forget_first()  # never one of the path: together with the new tokens it has room
        if start < len(tokens):
            node = _Node(path[-1], tokens[start:], get_values(start, len(tokens)).copy())
            path[-1].children[tokens[start]] = node
            self._count(node, 1)
            self._use([*path, node])

    def _walk(self, tokens: Sequence[int]) -> tuple[list[_Node[Values]], int]:
        """Return the nodes that `tokens` go through, from the root on, and how many tokens of the last are theirs."""
        path, start = [self._root], 0
        while start < len(tokens) and (child := path[-1].children.get(tokens[start])):
            num_alike = num_common(child.tokens, tokens[start : start + len(child.tokens)])
            path.append(child)
            start += num_alike
            if num_alike < len(child.tokens):
                return path, num_alike
        return path, len(path[-1].tokens)

    def _split(self, node: _Node[Values], num_tokens: int) -> _Node[Values]:
        """Cut a node in two, and return the one with its first tokens."""
        assert node.parent
        assert node.values is not None
        self._count(node, -1)
        first = _Node(node.parent, node.tokens[:num_tokens], node.values.narrow(0, num_tokens).copy())
        node.parent.children[first.tokens[0]] = first
        node.values = node.values.narrow(num_tokens, len(node.tokens)).copy()
        node.tokens, node.parent = node.tokens[num_tokens:], first
        first.children = {node.tokens[0]: node}
        self._count(node, 1)
        self._count(first, 1)
        return first

    def _use(self, path: Sequence[_Node[Values]]) -> None:
        for node in reversed(path):
            if node.parent:
                self._by_use[node] = None
                self._by_use.move_to_end(node)

    def _forget_first(self) -> None:
        node, _ = self._by_use.popitem(last=False)
        assert node.parent
        del node.parent.children[node.tokens[0]]
        self._count(node, -1)

    def _count(self, node: _Node[Values], sign: int) -> None:
        assert node.values is not None
        self.num_bytes += sign * node.values.num_bytes
        self.num_tokens += sign * len(node.tokens)


def num_common(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens two sequences have in common from their beginning."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


_prefix_caches: weakref.WeakSet[PrefixCache[Any]] = weakref.WeakSet()


def _clear_after_fork() -> None:
    """Clear what a forked process has: its parent may have been amid changing it."""
    for prefix_cache in list(_prefix_caches):
        prefix_cache.clear()


if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_clear_after_fork)
