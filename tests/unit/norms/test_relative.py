"""Answers to one prompt are compared with the same usual norms of tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest

from langnorm.norms.baseline import Baseline
from langnorm.norms.reading import read_norms
from langnorm.norms.relative import AnswerNorms, relative_norms
from langnorm.norms.token_sums import TokenSums
from langnorm.norms.token_table import TokenTable, shares_below
from tests.reference.token_table import ListsOfNorms

FIRST = AnswerNorms([5, 6, 5, 2], [[3.0], [4.0], [900.0]], sinks=[2])
SECOND = AnswerNorms([6, 5, 2], [[4.5], [2.5]])


def table_of(*tokens: tuple[int, float]) -> TokenTable:
    """Return a table of some tokens and their norms in one layer."""
    sums = TokenSums((9,))
    sums.update([token_id for token_id, _ in tokens], [[norm] for _, norm in tokens])
    table = sums.table()
    assert table is not None
    return table


def test_answers_make_the_table_together_with_what_was_seen() -> None:
    """Without sinks, which are compared all the same; what was seen stays as it is."""
    seen = TokenSums((9,))
    seen.update([5, 6, 6], [[2.0], [5.0], [4.0]])
    lists = ListsOfNorms(1)
    for token_id, norm in ((5, 2.0), (6, 5.0), (6, 4.0), (5, 3.0), (6, 4.0), (6, 4.5), (5, 2.5)):
        lists.add(token_id, [norm])
    expected = [
        [lists.relative(5, [3.0]), lists.relative(6, [4.0]), [10.0]],
        [lists.relative(6, [4.5]), lists.relative(5, [2.5])],
    ]
    for _ in range(2):
        found = relative_norms([FIRST, SECOND], (9,), Baseline(seen_tokens=seen))
        for of_one, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(of_one, wanted, atol=0.01)
    assert seen.num_tokens == 3
    alone = relative_norms([FIRST, SECOND], (9,))
    assert alone != found
    assert relative_norms([FIRST, SECOND], (9,), Baseline(seen_tokens=TokenSums((9,)))) == alone


def test_a_profiles_table_is_taken_as_it_is() -> None:
    """Whatever the answers are."""
    table = table_of((5, 2.0), (5, 3.0), (6, 5.0))
    found = relative_norms([FIRST, SECOND], (9,), Baseline(tokens=table))
    assert found == [table.relative(each.token_ids, each.norms).tolist() for each in (FIRST, SECOND)]


def test_answers_without_a_norm_of_any_use() -> None:
    """One has no row, and one none that has a logarithm."""
    none, zero = relative_norms([AnswerNorms([2], []), AnswerNorms([5, 2], [[0.0]])], (9,))
    assert none == []
    assert math.isnan(zero[0][0])


def test_intensities_relative_to_tokens() -> None:
    """The mean over layers of Phi(z), and None while there is no table, whatever distribution there is."""
    table = table_of((5, 2.0), (5, 3.0), (6, 5.0), (6, 5.5))
    reading = read_norms([[3.0], [4.0]], (9,), Baseline(tokens=table, intensity="token"), [5, 6, 2])
    expected = shares_below(table.relative([5, 6], [[3.0], [4.0]]))[:, 0].tolist()
    assert reading.intensities == pytest.approx(expected)
    assert reading.intensity_kind == "token"
    assert read_norms([[3.0]], (9,), Baseline(intensity="token"), [5, 2]).intensities is None
    assert read_norms([[3.0]], (9,), Baseline(tokens=table), [5, 2]).intensities is None
