"""The distribution of norms, against exact quantiles and ranks."""

from __future__ import annotations

import json
import math
import pickle
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from langnorm.errors import OptionError
from langnorm.norms.curve import ACCURACY, HIGHEST, LOWEST, NUM_BUCKETS
from langnorm.norms.sketch import QuantileSketch
from langnorm.norms.thresholds import IQRThreshold, resolve_thresholds

ROUNDING = 1e-9
"""How far float64 logarithms may be off, relative to `ACCURACY`."""

EXAMPLES = settings(max_examples=30)

norm = st.floats(-5, 7).map(lambda exponent: float(np.float32(10.0**exponent)))  # 12 orders of magnitude
norms = st.lists(norm | st.sampled_from([1.0, 1.001, 3e4]), min_size=1, max_size=80)  # with ties and near ties
any_norms = st.lists(norm | st.sampled_from([0.0, 1e-30, 1e12, math.inf, math.nan]), max_size=40)
apart = st.lists(norm, min_size=2, max_size=80, unique=True)  # as float32 they differ by more than rounding
shares = st.floats(0, 1)


def sketch_of(*columns: list[float]) -> QuantileSketch:
    """Return a sketch with a layer for each list of norms."""
    sketch = QuantileSketch(range(len(columns)))
    for layer, values in enumerate(columns):
        sketch.update(torch.tensor(values, dtype=torch.float64)[:, None], layers=[layer])
    return sketch


def lognormal(*shape: int, sigma: float = 1.0, seed: int = 0) -> Tensor:
    """Return lognormal norms whose scale grows along the last axis."""
    scale = torch.arange(shape[-1])
    return (sigma * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 2 * scale).exp()


def state(sketch: QuantileSketch) -> str:
    """Return all that a sketch knows, in a form that can be compared."""
    return json.dumps(sketch.to_dict(), allow_nan=False)


class TestQuantile:
    """Quantiles are those of the sorted sample, within the accuracy."""

    @EXAMPLES
    @given(norms, norms, shares)
    def test_quantile_is_within_the_accuracy(self, first, second, q) -> None:
        """The norm at rank ceil(q * n) is met within 0.2 %, in each layer."""
        quantiles = sketch_of(first, second).quantile(q)

        assert quantiles.dtype == np.float64
        for values, quantile in zip((first, second), quantiles.tolist(), strict=True):
            exact = np.quantile(values, q, method="inverted_cdf")
            assert abs(quantile - exact) <= ACCURACY * (1 + ROUNDING) * exact

    @EXAMPLES
    @given(norms, shares, shares)
    def test_quantile_rises_between_the_exact_extremes(self, values, low, high) -> None:
        """A greater share has no smaller quantile; the ends are the least and the greatest norm."""
        sketch = sketch_of(values)
        low, high = sorted((low, high))

        assert sketch.quantile(0).item() == min(values)
        assert sketch.quantile(1).item() == max(values)
        assert min(values) <= sketch.quantile(low).item() <= sketch.quantile(high).item() <= max(values)

    @EXAMPLES
    @given(norm | st.sampled_from([0.0, 1e-30, 1e12]), st.integers(1, 20), shares)
    def test_value_that_is_alone_comes_back_exactly(self, value, times, q) -> None:
        """One value, however often, is every quantile."""
        assert sketch_of([value] * times).quantile(q).item() == value

    @pytest.mark.parametrize("edge", [LOWEST, HIGHEST])
    def test_ends_of_the_range_are_as_accurate(self, edge) -> None:
        """The accuracy holds just inside the ends, and beyond them the side is known."""
        values = sorted(edge * factor for factor in (0.5, 0.9, 1, 1.1, 2))
        sketch = sketch_of(values)

        for rank, exact in enumerate(values):
            quantile = sketch.quantile((rank + 0.5) / 5).item()
            if LOWEST < exact <= HIGHEST:
                assert quantile == pytest.approx(exact, rel=ACCURACY * (1 + ROUNDING))
            else:
                assert min(values) <= quantile <= (1 + ACCURACY) * LOWEST or HIGHEST <= quantile <= max(values)

    def test_layer_without_norms_has_none(self) -> None:
        """NaN stands for the quantiles of an empty layer, next to those of another."""
        sketch = QuantileSketch((4, 9))
        sketch.update(torch.tensor([[2.0]]), layers=[9])

        for q in (0, 0.5, 1):
            assert np.isnan(sketch.quantile(q)[0])
            assert sketch.quantile(q)[1] == 2

    @pytest.mark.parametrize("q", [-0.1, 1.1, 50, math.nan, "0.5", None, True])
    def test_share_outside_0_to_1_is_an_error(self, q) -> None:
        """The message names it and what is allowed."""
        with pytest.raises(OptionError, match=re.escape(f"`q={q!r}` is not allowed. Use a number between 0 and 1.")):
            QuantileSketch((0,)).quantile(q)


class TestPercentile:
    """Percentiles are shares of the sample below a value."""

    @EXAMPLES
    @given(norms, norm)
    def test_percentile_is_a_share_between_those_of_the_neighbouring_buckets(self, values, value) -> None:
        """Norms farther than a bucket are told apart exactly."""
        percentile = sketch_of(values).percentile(torch.tensor([value], dtype=torch.float64)).item()
        bucket = ACCURACY * (1 + ROUNDING)
        exact = np.array(values)

        assert (exact < value / (1 + bucket)).mean() <= percentile + 1e-12
        assert percentile - 1e-12 <= (exact <= value * (1 + bucket)).mean()

    @EXAMPLES
    @given(any_norms, st.lists(norm | st.sampled_from([0.0, 1e-30, 1e12, math.inf]), min_size=2))
    def test_percentile_rises_with_the_norm(self, values, asked) -> None:
        """A greater norm never has a smaller percentile, and all are shares."""
        values.append(3.0)
        asked = torch.tensor(sorted([*asked, *(value for value in values if not math.isnan(value))]))
        percentiles = sketch_of(values).percentile(asked[:, None])[:, 0]

        assert (np.diff(percentiles) >= 0).all()
        assert ((percentiles >= 0) & (percentiles <= 1)).all()

    @EXAMPLES
    @given(norms)
    def test_percentile_is_0_below_and_1_above_all_norms(self, values) -> None:
        """The extremes are exact, not those of their buckets."""
        sketch = sketch_of(values)
        outside = torch.tensor([[min(values) * (1 - 1e-9)], [max(values) * (1 + 1e-9)]], dtype=torch.float64)

        assert sketch.percentile(outside).flatten().tolist() == [0.0, 1.0]

    @EXAMPLES
    @given(apart, shares)
    def test_quantile_and_percentile_are_inverse(self, values, q) -> None:
        """The share below a quantile is the one that it was asked for."""
        sketch = sketch_of(values)
        assert sketch.percentile(sketch.quantile(q)[None]).item() == pytest.approx(q, abs=1e-6)

    @pytest.mark.parametrize("sigma", [0.02, 0.08, 0.3, 1.0])
    @pytest.mark.parametrize("q", [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])
    def test_quantiles_of_many_norms_are_numpys(self, sigma, q) -> None:
        """Narrow layers and wide ones: interpolation is closer than the buckets are wide."""
        values = lognormal(20_000, 3, sigma=sigma)
        sketch = QuantileSketch(range(3))
        sketch.update(values)
        np.testing.assert_allclose(sketch.quantile(q), np.quantile(values.numpy(), q, axis=0), rtol=0.002)

    @pytest.mark.parametrize("seed", range(5))
    def test_thresholds_of_narrow_layers_fire_as_often_as_exact_ones(self, seed) -> None:
        """Norms like those of late layers: narrow, in two groups, with a tail; a fraction of a percent is high."""
        generator = np.random.default_rng(seed)
        of_words, of_digits, tail = (generator.lognormal(mean, 0.06, 20_000) for mean in (3.0, 3.12, 3.3))
        group = generator.random(20_000)
        values = np.where(group < 0.6, of_words, np.where(group < 0.99, of_digits, tail))
        sketch = sketch_of(values.tolist())
        first, third = np.quantile(values, [0.25, 0.75])
        exact = third + 1.5 * (third - first)
        (found,) = resolve_thresholds(IQRThreshold(), (0,), sketch) or ()

        assert found == pytest.approx(exact, rel=0.002)
        assert (values > found).mean() == pytest.approx((values > exact).mean(), abs=2e-4)

    @pytest.mark.parametrize("value", [0.0, 1e-30, 1.0, 777.7, 1e12])
    def test_percentile_among_equal_norms_is_the_middle_rank(self, value) -> None:
        """Where all norms are the same, none is above or below."""
        assert sketch_of([value] * 7).percentile(torch.tensor([value], dtype=torch.float64)).item() == 0.5

    def test_percentile_of_many_norms_is_their_rank(self) -> None:
        """On a sample that is dense in its buckets, interpolation is closer than the buckets are wide."""
        values = lognormal(20_000, 2)
        sketch = QuantileSketch((0, 1))
        sketch.update(values)
        exact = values.argsort(dim=0).argsort(dim=0) / len(values)

        percentiles = sketch.percentile(values.reshape(100, 200, 2))

        assert percentiles.shape == (100, 200, 2)
        assert percentiles.dtype == np.float64
        assert np.abs(percentiles.reshape(-1, 2) - exact.numpy()).max() < 0.002

    def test_percentile_of_nan_and_of_an_empty_layer_is_nan(self) -> None:
        """What cannot be ranked has no percentile; the others keep theirs."""
        sketch = sketch_of([1.0, 2.0], [])
        percentiles = sketch.percentile(torch.tensor([[3.0, 3.0], [math.nan, 0.0], [0.5, math.nan]]))

        np.testing.assert_array_equal(percentiles, [[1, math.nan], [math.nan, math.nan], [0, math.nan]])

    def test_an_end_that_many_norms_share_is_an_end(self) -> None:
        """The least norm has share 0 also where it fills its bucket to the edge, and the greatest one has 1."""
        asked = torch.tensor([[LOWEST], [np.nextafter(LOWEST, 0)], [1.0], [np.nextafter(1.0, 2)]], dtype=torch.float64)
        assert sketch_of([LOWEST] * 5 + [1.0]).percentile(asked).flatten().tolist() == [0.0, 0.0, 1.0, 1.0]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
    def test_any_tensor_can_be_asked_for(self, dtype) -> None:
        """As it can be counted; lists and arrays too."""
        sketch, asked = sketch_of([1.0, 2.0, 4.0, 8.0]), [[2.0], [4.0]]
        expected = sketch.percentile(asked).tolist()
        assert sketch.percentile(np.array(asked)).tolist() == expected
        assert sketch.percentile(torch.tensor(asked).to(dtype)).tolist() == expected
        assert sketch.percentile(torch.tensor(asked, requires_grad=True)).tolist() == expected

    def test_no_rows_have_no_percentiles(self) -> None:
        """The shape is kept."""
        assert sketch_of([1.0], [2.0]).percentile(torch.empty(0, 2)).shape == (0, 2)

    @pytest.mark.parametrize("num_columns", [1, 3])
    def test_number_of_columns_is_checked(self, num_columns) -> None:
        """One column is not silently taken for all layers."""
        with pytest.raises(OptionError, match="do not fit `2` layers"):
            sketch_of([1.0], [2.0]).percentile(torch.ones(4, num_columns))


class TestUpdate:
    """What is counted, and for which layers."""

    @EXAMPLES
    @given(any_norms, st.data())
    def test_masked_norms_count_as_if_they_were_alone(self, values, data) -> None:
        """NaN, infinity and what the mask hides change nothing."""
        mask = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
        masked = QuantileSketch((0,))
        masked.update(torch.tensor(values, dtype=torch.float64)[:, None], torch.tensor(mask, dtype=torch.bool))
        kept = [value for value, is_kept in zip(values, mask, strict=True) if is_kept and math.isfinite(value)]

        assert state(masked) == state(sketch_of(kept))
        assert masked.num_samples == len(kept)

    def test_mask_hides_rows_of_all_layers(self) -> None:
        """A mask has the shape of the norms without their layers."""
        values = lognormal(3, 4, 2)
        mask = torch.rand(3, 4, generator=torch.Generator().manual_seed(1)) < 0.5
        sketch, expected = QuantileSketch((2, 5)), QuantileSketch((2, 5))
        sketch.update(values, mask)
        expected.update(values[mask])

        assert state(sketch) == state(expected)
        assert sketch.count.tolist() == [mask.sum()] * 2
        assert sketch.count.dtype == np.int64

    def test_nan_is_left_out_of_its_own_layer_only(self) -> None:
        """The smallest count is the number of samples."""
        sketch = QuantileSketch((2, 5))
        sketch.update(torch.tensor([[1.0, math.nan], [math.nan, math.nan], [2.0, 3.0]]))

        assert sketch.count.tolist() == [2, 1]
        assert sketch.num_samples == 1

    @pytest.mark.parametrize("layers", [(5,), (2, 9), (9, 2), (2, 5, 9)])
    def test_columns_belong_to_the_layers_given(self, layers) -> None:
        """Some layers are updated in any order, and the others stay as they were."""
        values = lognormal(50, len(layers))
        sketch = QuantileSketch((2, 5, 9))
        sketch.update(values, layers=layers)

        for layer in sketch.layers:
            alone = QuantileSketch((layer,))
            if layer in layers:
                alone.update(values[:, [layers.index(layer)]])
            assert state(sketch.select([layer])) == state(alone)

    def test_shape_and_dtype_of_the_norms_do_not_matter(self) -> None:
        """A row, a batch of rows, float16 and integers are counted alike."""
        values = torch.arange(1, 13).reshape(2, 3, 2)
        expected = QuantileSketch((0, 1))
        expected.update(values.double())
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.int64):
            sketch = QuantileSketch((0, 1))
            for row in values.reshape(6, 2).to(dtype):
                sketch.update(row)
            assert state(sketch) == state(expected)

    def test_nothing_added_is_nothing_known(self) -> None:
        """Empty batches and sketches without layers are no special case."""
        sketch = QuantileSketch((1, 2))
        sketch.update(torch.empty(3, 0, 2), torch.empty(3, 0, dtype=torch.bool))
        none = QuantileSketch(())
        none.update(torch.empty(5, 0))

        assert (sketch.num_samples, none.num_samples) == (0, 0)
        assert none.quantile(0.5).shape == (0,)
        assert none.percentile(torch.empty(5, 0)).shape == (5, 0)

    def test_inside_inference_mode_it_stays_an_ordinary_sketch(self) -> None:
        """Norms of a model that runs without gradients can be added, inside and outside, and so can others."""
        sketch = QuantileSketch((1,))
        with torch.inference_mode():
            sketch.update(torch.tensor([[1.0]]))
        sketch.update(torch.tensor([[2.0]], requires_grad=True))

        assert sketch.quantile(1).item() == 2
        assert not sketch._maximum.requires_grad

    @pytest.mark.parametrize("layers", [None, (2,)])
    def test_nothing_waits_for_the_device(self, layers) -> None:
        """Tensors of the meta device have no data, so whatever needed some would fail."""
        sketch = QuantileSketch((1, 2, 3), device="meta")
        values = torch.empty(4, 7, len(layers or sketch.layers), device="meta")
        sketch.update(values, layers=layers)
        sketch.update(values, torch.empty(4, 7, dtype=torch.bool, device="meta"), layers)

        with pytest.raises(RuntimeError, match="meta"):
            sketch.count.tolist()

    @pytest.mark.parametrize("num_columns", [1, 2, 4])
    def test_number_of_columns_is_checked(self, num_columns) -> None:
        """One column is not silently taken for all layers."""
        with pytest.raises(OptionError, match="do not fit `3` layers. Give one column per layer."):
            QuantileSketch((1, 2, 3)).update(torch.ones(5, num_columns))

    def test_unknown_layer_is_an_error(self) -> None:
        """The message names it and those that are there."""
        with pytest.raises(OptionError, match=re.escape("Layers `[4]` are not in this distribution. Use some of `[1")):
            QuantileSketch((1, 2)).update(torch.ones(5, 2), layers=(1, 4))

    @pytest.mark.parametrize("layers", [(3, 1), (1, 1), (-1, 2)])
    def test_layers_are_ascending_indices(self, layers) -> None:
        """Another order would mix up the rows of users who sort."""
        with pytest.raises(OptionError, match=re.escape(f"`layers={list(layers)}` is not allowed")):
            QuantileSketch(layers)


class TestMerge:
    """Sketches add up like the samples they were made of."""

    @EXAMPLES
    @given(any_norms, any_norms, any_norms)
    def test_merging_is_counting_together(self, first, second, third) -> None:
        """Order and grouping do not matter, and nothing is lost."""
        left = sketch_of(first, second)
        left.merge(sketch_of(second, third))
        left.merge(sketch_of(third, first))
        right = sketch_of(third, first)
        inner = sketch_of(second, third)
        inner.merge(sketch_of(first, second))
        right.merge(inner)

        assert state(left) == state(right) == state(sketch_of(first + second + third, second + third + first))

    @EXAMPLES
    @given(any_norms)
    def test_empty_sketch_changes_nothing(self, values) -> None:
        """An empty one is the neutral element, on either side."""
        sketch, empty = sketch_of(values), sketch_of([])
        sketch.merge(sketch_of([]))
        empty.merge(sketch_of(values))

        assert state(sketch) == state(empty) == state(sketch_of(values))

    def test_counts_do_not_overflow(self) -> None:
        """As many norms as one distribution may have, twice."""
        stored = {"1": {"min": 1.0, "max": 1.0, "runs": [[6916, 2**53]]}}
        sketch = QuantileSketch.from_dict(sketch_of([]).to_dict() | {"layers": stored})
        assert sketch.num_samples == 2**53
        with pytest.raises(OptionError, match="cannot be merged"):
            sketch.merge(sketch.copy())

    def test_other_layers_are_an_error(self) -> None:
        """The message says which layers only one of them has."""
        with pytest.raises(OptionError, match=re.escape("only here `[1, 2]`, only there `[7]`")):
            QuantileSketch((1, 2, 5)).merge(QuantileSketch((5, 7)))

    def test_copies_go_their_own_way(self) -> None:
        """Updates of a sketch reach none of its copies, and theirs do not reach it."""
        sketch = sketch_of([1.0, 2.0], [3.0])
        before = state(sketch)
        for twin in (
            sketch.copy(),
            sketch.to("cpu"),
            sketch.select((0, 1)),
            QuantileSketch.from_dict(sketch.to_dict()),
        ):
            assert state(twin) == before
            twin.update(torch.tensor([9.0, 9.0]))
            assert state(twin) != before
            assert state(sketch) == before

    def test_selection_has_the_layers_asked_for(self) -> None:
        """Each keeps its distribution; none may be asked for."""
        sketch = QuantileSketch((2, 5, 9))
        sketch.update(lognormal(50, 3))
        selected = sketch.select([2, 9])

        assert selected.layers == (2, 9)
        assert selected.quantile(0.5).tolist() == sketch.quantile(0.5)[[0, 2]].tolist()
        assert sketch.select([]).layers == ()

    def test_selecting_a_missing_layer_is_an_error(self) -> None:
        """The message names it and those that are there."""
        with pytest.raises(OptionError, match=re.escape("Layers `[3]` are not in this distribution. Use some of `[2")):
            QuantileSketch((2, 5)).select((2, 3))

    def test_sketch_moves_to_another_device(self) -> None:
        """The copy is there, and the original stays."""
        sketch = sketch_of([1.0])

        assert sketch.to("meta").device.type == "meta"
        assert sketch.device.type == "cpu"
        assert sketch.num_samples == 1


class TestJSON:
    """The JSON form is exact, small and checked."""

    @EXAMPLES
    @given(any_norms, any_norms)
    def test_round_trip_is_exact(self, first, second) -> None:
        """Strict JSON holds everything, infinities and empty layers too."""
        sketch = sketch_of(first, second).select([1])
        sketch.layers = (17,)
        restored = QuantileSketch.from_dict(json.loads(state(sketch)))

        assert restored.layers == (17,)
        assert state(restored) == state(sketch)
        for q in (0, 0.3, 1):
            np.testing.assert_array_equal(restored.quantile(q), sketch.quantile(q), strict=True)

    @pytest.mark.parametrize("seed", range(3))
    def test_many_norms_are_a_small_file(self, seed) -> None:
        """Twenty thousand norms of three layers, as a calibration records them, take less than ten kilobytes."""
        sketch = QuantileSketch((21, 22, 23))
        sketch.update(lognormal(20_000, 3, sigma=0.1, seed=seed))

        assert sketch.num_samples == 20_000
        assert len(state(sketch)) < 10_000

    @pytest.mark.parametrize("change", [{"version": 1}, {"version": None}, {"accuracy": 0.02}])
    def test_other_version_or_accuracy_is_an_error(self, change) -> None:
        """The message names where."""
        ((name, _),) = change.items()
        with pytest.raises(OptionError, match=f"not a stored distribution of this version of langnorm .at `{name}`"):
            QuantileSketch.from_dict(sketch_of([1.0]).to_dict() | change)

    @pytest.mark.parametrize("stored", [None, 5, "x", [1]])
    def test_what_is_no_dict_is_an_error(self, stored) -> None:
        """The message says what it should be."""
        with pytest.raises(OptionError, match="This is not a stored distribution .*: Input should be an object"):
            QuantileSketch.from_dict(stored)

    @pytest.mark.parametrize(
        "layers",
        [
            None,
            ["1"],
            {"first": {"min": 1.0, "max": 1.0, "runs": [[5, 1]]}},
            {"2": {"min": None, "max": None, "runs": []}, "1": {"min": None, "max": None, "runs": []}},
            {"1": None},
            {"1": {"min": 1.0, "max": 1.0}},
            {"1": {"min": 1.0, "runs": [[5, 1]]}},
            {"1": {"min": 2.0, "max": 1.0, "runs": [[5, 1]]}},
            {"1": {"min": math.nan, "max": 1.0, "runs": [[5, 1]]}},
            {"1": {"min": 1.0, "max": math.inf, "runs": [[5, 1]]}},
            {"1": {"min": -1.0, "max": 1.0, "runs": [[5, 1]]}},
            {"1": {"min": True, "max": 1.0, "runs": [[5, 1]]}},
            {"01": {"min": 1.0, "max": 1.0, "runs": [[5, 1]]}},
            {str(layer): {"min": None, "max": None, "runs": []} for layer in range(1001)},
            {"1": {"min": "little", "max": 1.0, "runs": [[5, 1]]}},
            {"1": {"min": 1.0, "max": 1.0, "runs": []}},
            {"1": {"min": None, "max": None, "runs": [[5, 1]]}},
            {"1": {"min": 1.0, "max": None, "runs": [[5, 1]]}},
            *(
                {"1": {"min": 1.0, "max": 2.0, "runs": runs}}
                for runs in (
                    *(None, 5, "text", [5, 1], [[5]], [[]], [[-1, 1]], [[5, 0]], [[5, -1]], [[5, 1.5]], [["5", 1]]),
                    *([[5, True]], [[10**9, 1]], [[NUM_BUCKETS - 9, *[1] * 10]], [[5, 1, 1], [6, 1]], [[9, 1], [5, 1]]),
                    *([[5, 2**62]], [[5, 2**63]], [[5, 10**400]], [[5, 2**53], [7, 1]]),
                )
            ),
        ],
    )
    def test_damaged_form_is_an_error(self, layers) -> None:
        """Nothing is guessed from a file that was cut or edited."""
        with pytest.raises(OptionError, match="This is not a stored distribution of this version of langnorm"):
            QuantileSketch.from_dict(sketch_of([]).to_dict() | {"layers": layers})


def asked(sketch: QuantileSketch, values: Tensor) -> list[list[float]]:
    """Return all that a sketch says, asked for twice: what it remembers must be what it found."""
    shares = (0.3, 0.3, 0.25, 0.5)
    answers = [[*sketch.quantile(q).tolist(), *sketch.percentile(values).flatten().tolist()] for q in shares]
    assert answers[0] == answers[1]
    return [*answers, sketch.count.tolist(), sketch.select([1]).quantile(0.3).tolist()]


def test_what_was_asked_before_does_not_outlive_an_update() -> None:
    """After `update` and `merge` a sketch answers like one that was never asked; its copies stay as they were."""
    first, more, values = lognormal(50, 2), lognormal(70, 2, sigma=2.0, seed=1), lognormal(9, 2, seed=2)
    sketch, silent = QuantileSketch(range(2)), QuantileSketch(range(2))
    for each in (sketch, silent):
        each.update(first)
    before = asked(sketch, values)
    copy, selected = sketch.copy(), sketch.select([0, 1])
    for change in (lambda s: s.update(more), lambda s: s.merge(silent.copy())):
        change(sketch)
        fresh = QuantileSketch.from_dict(sketch.to_dict())
        assert asked(sketch, values) == asked(fresh, values) != before
    assert asked(copy, values) == asked(selected, values) == before
    copy.update(more)
    assert asked(selected, values) == before != asked(copy, values)


def test_what_a_sketch_says_is_the_askers_own() -> None:
    """Who changes a quantile or a selection does not change what the next one is told."""
    sketch = QuantileSketch(range(2))
    sketch.update(lognormal(50, 2))
    expected, median = sketch.quantile(0.5).copy(), sketch.quantile(0.5)
    median[:] = 0
    sketch.count[:] = 0
    sketch.select([0, 1]).update(lognormal(50, 2, seed=3))
    assert np.array_equal(sketch.quantile(0.5), expected)
    assert np.array_equal(sketch.select([0, 1]).quantile(0.5), expected)


def test_what_a_sketch_remembers_is_bounded_and_not_saved() -> None:
    """However much is asked, and whoever copies or pickles it."""
    sketch = QuantileSketch(range(2))
    sketch.update(lognormal(50, 2))
    sizes = len(pickle.dumps(sketch))
    expected = [sketch.quantile(i / 100).tolist() for i in range(100)]
    assert [sketch.quantile(i / 100).tolist() for i in range(100)] == expected
    assert len(sketch._results) < 50
    assert len(pickle.dumps(sketch)) == sizes
    assert pickle.loads(pickle.dumps(sketch)).quantile(0.3).tolist() == expected[30]


def test_copies_that_share_are_told_apart_when_one_changes() -> None:
    """Whichever of them changes, inside inference mode or outside, and however often."""
    sketch = sketch_of([1.0, 2.0])
    copies = [sketch.copy(), sketch.copy().copy(), sketch.select([0]), pickle.loads(pickle.dumps(sketch.copy()))]
    for number, each in enumerate([*copies, sketch]):
        with torch.inference_mode():
            each.update(torch.tensor([[10.0 + number]]))
            each.merge(sketch_of([1000.0 + number]))
        each.update(torch.tensor([[100.0 + number]]))
    for number, each in enumerate([*copies, sketch]):
        assert state(each) == state(sketch_of([1.0, 2.0, 10.0 + number, 100.0 + number, 1000.0 + number]))
