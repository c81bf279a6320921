"""What is usual for each token id is what lists of all norms say, in whatever order and parts it was counted."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from langnorm.errors import OptionError
from langnorm.norms.token_file import from_bytes, to_bytes
from langnorm.norms.token_sums import StoredSums, TokenSums
from langnorm.norms.token_table import FARTHEST, LEAST_SPREAD, TokenTable, shares_below
from tests.reference.token_table import ListsOfNorms

Tokens = tuple[list[int], np.ndarray]


@st.composite
def tokens(draw: st.DrawFn, num_layers: int = 2, fewest: int = 0) -> Tokens:
    """Draw ids, often the same, and a row of norms for each, in which the id tells something."""
    ids = draw(st.lists(st.sampled_from([0, 1, 2, 7, 50_000, 151_935, 2**23]), min_size=fewest, max_size=60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    usual = np.array([0.3 * (token_id % 5) for token_id in ids])[:, None]
    spread = draw(st.sampled_from([0.0, 0.01, 0.3]))
    norms = np.exp(rng.uniform(2, 9, size=num_layers) + usual + spread * rng.normal(size=(len(ids), num_layers)))
    return ids, norms


def sums_of(*parts: Tokens, num_layers: int = 2) -> TokenSums:
    """Return what was counted of some tokens, part after part."""
    sums = TokenSums(range(4, 4 + num_layers))
    for ids, norms in parts:
        sums.update(ids, norms)
    return sums


def table_of(*parts: Tokens) -> TokenTable:
    """Return what is usual for some tokens."""
    table = sums_of(*parts).table()
    assert table is not None
    return table


def assert_same(first: TokenSums, second: TokenSums) -> None:
    """Assert that the same tokens were counted, but for rounding."""
    assert first.layers == second.layers
    assert first.ids.tolist() == second.ids.tolist()
    assert first.counts.tolist() == second.counts.tolist()
    np.testing.assert_allclose(first.means, second.means, rtol=1e-9)
    np.testing.assert_allclose(first.squares, second.squares, rtol=1e-6, atol=1e-12)


@given(tokens(fewest=1), tokens(fewest=1))
def test_norms_relative_to_their_tokens_are_what_lists_say(known: Tokens, asked: Tokens) -> None:
    """Of ids that were seen often, once and never, to within what half precision keeps."""
    lists = ListsOfNorms(2)
    for token_id, row in zip(known[0], known[1].tolist(), strict=True):
        lists.add(token_id, row)
    table = table_of(known)
    found = table.relative(*asked)
    for token_id, row, z in zip(asked[0], asked[1].tolist(), found.tolist(), strict=True):
        expected = lists.relative(token_id, row)
        # An offset of up to 2 is known to within 2^-11, and so is the spread, relatively.
        tolerances = [0.002 * abs(value) + 2**-10 / math.sqrt(lists.within(i)) for i, value in enumerate(expected)]
        assert all(abs(a - b) <= t + 1e-9 for a, b, t in zip(z, expected, tolerances, strict=True))
    assert table.explained.tolist() == pytest.approx([lists.explained(layer) for layer in range(2)], abs=0.01)
    assert table.num_tokens == len(known[0])


@given(tokens(), tokens(), tokens())
def test_parts_may_be_counted_in_any_order(a: Tokens, b: Tokens, c: Tokens) -> None:
    """One after the other, or apart and merged: associative and commutative but for rounding."""
    whole = sums_of((a[0] + b[0] + c[0], np.concatenate([a[1], b[1], c[1]])))
    left = sums_of(a).merged_with(sums_of(b)).merged_with(sums_of(c))
    right = sums_of(c).merged_with(sums_of(b).merged_with(sums_of(a)))
    for other in (sums_of(a, b, c), left, right):
        assert_same(whole, other)


@given(tokens(), tokens())
def test_copies_stay_as_they_are(a: Tokens, b: Tokens) -> None:
    """What is counted later is not in them, nor in what was selected or made of them."""
    sums = sums_of(a)
    before = sums.to_dict()
    copy, some, table = sums.copy(), sums.select([5]), sums.table()
    sums.update(*b)
    assert copy.to_dict() == before
    assert_same(some, copy.select([5]))
    assert copy.table() == table


@given(tokens(fewest=1), tokens(fewest=1))
def test_a_table_gives_back_what_was_counted(a: Tokens, b: Tokens) -> None:
    """Tables are merged by it: means and spreads are those of all tokens, as far as half precision knows them."""
    merged = TokenSums.of(table_of(a)).merged_with(TokenSums.of(table_of(b))).table()
    whole = table_of(a, b)
    assert merged is not None
    assert merged.ids.tolist() == whole.ids.tolist()
    assert merged.counts.tolist() == whole.counts.tolist()
    np.testing.assert_allclose(merged.centres, whole.centres, atol=2e-3)
    np.testing.assert_allclose(merged.spreads, whole.spreads, rtol=0.02, atol=5e-3)
    np.testing.assert_allclose(merged.offsets, whole.offsets, atol=5e-3)


@given(tokens(fewest=1))
def test_a_file_gives_back_its_table(known: Tokens) -> None:
    """To the last bit, and always as the same bytes."""
    table = table_of(known)
    content = to_bytes(table)
    assert from_bytes(content, "This") == table
    assert to_bytes(from_bytes(content, "This")) == content == to_bytes(table_of(known))


def test_a_table_of_a_large_vocabulary_is_small() -> None:
    """150,000 ids of 6 layers take less than 3 MB."""
    rng = np.random.default_rng(0)
    ids = np.sort(rng.permutation(151_936)[:150_000])
    sums = TokenSums(range(21, 27))
    sums.update(ids, np.exp(rng.normal(5, 0.1, size=(150_000, 6))))
    sums.update(ids, np.exp(rng.normal(5, 0.1, size=(150_000, 6))))
    table = sums.table()
    assert table is not None
    assert len(to_bytes(table)) < 3_000_000


def arrays_of(table: TokenTable) -> dict[str, Any]:
    """Return the arrays in the file of a table."""
    return load(to_bytes(table))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("layers", np.array([5, 4]), "layers must be indices from 0 up, ascending"),
        ("layers", np.array([-1, 4]), "layers must be"),
        ("layers", np.array([], dtype=np.int64), "layers must be"),
        ("layers", np.array([4.0, 5.0]), "no `layers` of the type int64"),
        ("seen", np.zeros(2**21 + 1, dtype=np.uint8), "a bit for each id, up to 16,777,216"),
        ("seen", np.array([0b111], dtype=np.uint8), "`counts` must be finite numbers of the shape .3,"),
        ("counts", np.array([0, 2], dtype=np.uint32), "each seen once at least"),
        ("offsets", np.full((2, 2), math.inf, dtype=np.float16), "`offsets` must be finite"),
        ("offsets", np.zeros((2, 3), dtype=np.float16), "`offsets` must be .* of the shape .2, 2"),
        ("ratios", np.full(2, -1.0, dtype=np.float16), "ratios must not be below 0"),
        ("centres", np.full(2, 1e9), "logarithms of norms"),
        ("spreads", np.zeros(2), "nor its spreads below 0.001"),
        ("spreads", np.full(2, math.nan), "`spreads` must be finite"),
    ],
)
def test_a_file_that_is_no_table_is_refused(name: str, value: Any, said: str) -> None:
    """Whatever is wrong in it is named, and how to make another."""
    arrays = arrays_of(table_of(([1, 2, 2], np.array([[1.0, 2.0], [1.1, 2.1], [1.2, 2.2]]))))
    with pytest.raises(OptionError, match=rf"^This is not a table of tokens .*{said}.* `langnorm calibrate`"):
        from_bytes(save(arrays | {name: value}), "This")
    del arrays[name]
    with pytest.raises(OptionError, match=f"it has no `{name}`"):
        from_bytes(save(arrays), "This")


@given(st.data())
def test_a_damaged_file_is_refused_or_read(data: st.DataObject) -> None:
    """Cut anywhere, or with other bytes: never another error, and what is read compares norms all the same."""
    content = bytearray(to_bytes(table_of(([1, 2, 2], np.array([[1.0, 2.0], [1.1, 2.1], [1.2, 2.2]])))))
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)))):
        content[place] = value
    end = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    try:
        table = from_bytes(bytes(content[:end]), "This")
    except OptionError:
        return
    assert np.isfinite(table.relative([1, 9], np.full((2, len(table.layers)), 2.0))).all()


@given(tokens())
def test_a_checkpoint_gives_back_what_was_counted(known: Tokens) -> None:
    """To the last bit, through JSON."""
    stored = sums_of(known).to_dict()
    again = TokenSums.from_stored(StoredSums.model_validate_json(json.dumps(stored)))
    assert again.to_dict() == stored


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ids": "AAAAAA"}, "`ids` are no array in base64"),
        ({"ids": ""}, "not as many counts, means and squares as ids"),
        ({"means": ""}, "not as many"),
        ({"counts": base64.b64encode(bytes(16)).decode()}, "each seen once at least"),
        ({"squares": base64.b64encode(np.full(4, -1.0).tobytes()).decode()}, "not below 0"),
        ({"means": base64.b64encode(np.full(4, math.nan).tobytes()).decode()}, "must be finite"),
        ({"means": base64.b64encode(np.zeros(3).tobytes()).decode()}, "cannot reshape"),
        ({"layers": [5, 4]}, "must ascend"),
    ],
)
def test_counts_that_were_damaged_are_refused(changed: dict[str, Any], said: str) -> None:
    """By the form of the checkpoint that holds them."""
    stored = sums_of(([1, 2], np.array([[1.0, 2.0], [1.1, 2.1]]))).to_dict()
    with pytest.raises(ValueError, match=said):
        StoredSums.model_validate_json(json.dumps(stored | changed))


def test_without_tokens_there_is_no_table() -> None:
    """And what no model says of a token counts nothing: rows that are 0, infinite or masked."""
    sums = TokenSums((0, 1))
    assert sums.table() is None
    sums.update([], [])
    sums.update([1, 2, 3], [[0.0, 1.0], [math.inf, 1.0], [math.nan, 1.0]])
    sums.update([4, 5], [[1.0, 1.0]], [False])
    assert sums.num_tokens == 0
    sums.update([4, 5], [[1.0, 1.0]])
    assert (sums.ids.tolist(), sums.num_tokens) == ([4], 1)


def test_the_layers_of_a_table() -> None:
    """Some of them are like all of them."""
    ids, norms = [1, 1, 2, 2, 3], np.exp(np.arange(10.0).reshape(5, 2) / 7)
    table = table_of((ids, norms))
    assert table.select((4, 5)) is table
    some = table.select([5])
    np.testing.assert_array_equal(some.relative(ids, norms[:, 1:]), table.relative(ids, norms)[:, 1:])
    for selectable in (table, sums_of((ids, norms))):
        with pytest.raises(OptionError, match=r"Layers `\[6\]` are not in .* Use some of `\[4, 5\]`"):
            selectable.select([5, 6])
    with pytest.raises(OptionError, match="cannot be added to those in"):
        sums_of((ids, norms)).merge(TokenSums([4]))
    with pytest.raises(OptionError, match="ascending"):
        TokenSums([5, 4])


def test_norms_far_off_end_somewhere() -> None:
    """A state of 0 and a huge one are as far off as anything is; what is no number stays none."""
    table = table_of(([1, 1, 2], np.array([[1.0, 2.0], [1.1, 2.1], [1.2, 2.2]])))
    z = table.relative([1, 9, 2], [[0.0, 1e300], [1e300, 0.0], [math.nan, 2.2]])
    assert z[0].tolist() == [-FARTHEST, FARTHEST]
    assert z[1].tolist() == [FARTHEST, -FARTHEST]
    assert np.isnan(z[2, 0])
    assert np.isfinite(z[2, 1])


def test_steady_norms_are_told_apart_by_the_least_spread() -> None:
    """A layer that never varies has a spread all the same."""
    table = table_of(([1, 1, 1], np.full((3, 2), 4.0)))
    assert table.spreads.tolist() == [LEAST_SPREAD] * 2
    assert table.relative([1], [[4.0, 4.0]]).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("ids", "norms", "said"),
    [
        ([1], [[1.0]], "do not fit `2` layers"),
        ([1], [1.0, 2.0], "do not fit `2` layers"),
        ([1], [[1.0, 2.0]] * 2, "There are `1` token ids for `2` rows"),
        ([-1], [[1.0, 2.0]], "ids from `-1` to `-1` are not allowed"),
        ([2**31], [[1.0, 2.0]], "below 2.31"),
    ],
)
def test_what_does_not_fit_is_refused(ids: Any, norms: Any, said: str) -> None:
    """By what counts, and by what compares."""
    sums = sums_of(([3], np.array([[1.0, 2.0]])))
    table = sums.table()
    assert table is not None
    for method in (sums.update, table.relative):
        with pytest.raises(OptionError, match=said):
            method(ids, norms)


@given(st.lists(st.floats(-12, 12), max_size=9))
def test_shares_are_those_of_a_normal_distribution(z: list[float]) -> None:
    """As the standard library has it."""
    from statistics import NormalDist

    found = shares_below(np.array(z).reshape(-1, 1))
    assert found.shape == (len(z), 1)
    assert found[:, 0].tolist() == pytest.approx([NormalDist().cdf(value) for value in z], abs=1e-12)
