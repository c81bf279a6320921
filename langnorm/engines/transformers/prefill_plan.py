"""Decides which tokens of a batch of prompts are run, and in which forward passes: none twice where that saves time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from langnorm.engines.transformers.prefix_cache import num_common

LEAST_SAVED = 128
"""Positions that one more forward pass must save: a pass of few tokens takes as long as one of a single token."""


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens `start` to `end` of one prompt, or of several that agree on all tokens up to `end`.

    Attributes:
        start: Position of the first token; those before it have been run.
        end: One past the position of the last token.
        members: Numbers of the prompts.
    """

    start: int
    end: int
    members: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Number of tokens."""
        return self.end - self.start


def common_beginnings(prompts: Sequence[tuple[int, ...]], num_known: Sequence[int]) -> list[Run]:
    """Return runs of beginnings that several prompts share, where that saves enough for a pass of its own.

    Args:
        prompts: Token ids, each prompt once.
        num_known: How many tokens of each have been run.
    """
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, (prompt, known) in enumerate(zip(prompts, num_known, strict=True)):
        groups[prompt[:known]].append(number)
    return [run for known, members in groups.items() for run in _common_beginnings(prompts, members, len(known))]


def _common_beginnings(prompts: Sequence[tuple[int, ...]], members: Sequence[int], start: int) -> list[Run]:
    if len(members) < 2:
        return []
    in_order = sorted(prompts[number] for number in members)
    end = num_common(in_order[0], in_order[-1])
    if (len(members) - 1) * (end - start) >= LEAST_SAVED:
        return [Run(start, end, tuple(members))]
    by_next_token: dict[int, list[int]] = defaultdict(list)
    for number in members:
        if len(prompts[number]) > end:
            by_next_token[prompts[number][end]].append(number)
    return [run for group in by_next_token.values() for run in _common_beginnings(prompts, group, start)]


def padded_passes(runs: Sequence[Run]) -> list[list[Run]]:
    """Return runs as padded passes, such that no run gets so much padding that a pass of its own costs less."""
    passes: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: -run.num_tokens):
        if passes and passes[-1][0].num_tokens - run.num_tokens < LEAST_SAVED:
            passes[-1].append(run)
        else:
            passes.append([run])
    return passes


def is_worth_it(passes: Sequence[Sequence[Run]], num_positions: int) -> bool:
    """Return whether passes of their own save enough against running this many padded positions at once."""
    num_run = sum(len(of_pass) * of_pass[0].num_tokens for of_pass in passes)
    return num_positions - num_run >= LEAST_SAVED * max(1, len(passes))
