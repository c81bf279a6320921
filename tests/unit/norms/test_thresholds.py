"""Which norm is high: rules and what they are parsed from, and the paper's online estimator against an oracle."""

from __future__ import annotations

import copy
import math
import pickle
import re
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from langnorm.errors import OptionError
from langnorm.norms.p_square import PSquare
from langnorm.norms.reference_estimator import ReferenceEstimator
from langnorm.norms.sketch import QuantileSketch
from langnorm.norms.thresholds import (
    FixedThreshold,
    IQRThreshold,
    QuantileThreshold,
    ReferenceThreshold,
    RunningThreshold,
    needs_distribution,
    readable_rule,
    resolve_thresholds,
    threshold_rule,
)
from tests.reference.p_square import p_square, reference_thresholds

LAYERS = (3, 7, 9)
WORKED_EXAMPLE = [
    *(0.02, 0.15, 0.74, 3.39, 0.83, 22.37, 10.15, 15.43, 38.62, 15.92),
    *(34.60, 10.28, 1.47, 0.40, 0.05, 11.39, 0.27, 0.42, 0.09, 11.37),
]
"""The samples of the example in the paper of P-square, whose median comes out as 4.44."""


def streams(num_samples: int = 800) -> dict[str, np.ndarray]:
    """Return streams of three layers (samples, 3), easy ones and hard ones."""
    rng = np.random.default_rng(7)
    lognormal = rng.lognormal([1.0, 3.0, 6.0], [0.1, 0.5, 1.5], size=(num_samples, 3))
    return {
        "lognormal": lognormal,
        "ties": np.ceil(lognormal / 20) * 20,
        "constant": np.full((num_samples, 3), 4.5),
        "rising": np.sort(lognormal, axis=0),
        "falling": np.sort(lognormal, axis=0)[::-1],
        "outliers": np.where(rng.random((num_samples, 3)) < 0.01, 1e5 * lognormal, lognormal),
    }


def known() -> QuantileSketch:
    """Return a distribution whose layers have norms of 1 to 1001, ten and a hundred times as much."""
    sketch = QuantileSketch(LAYERS)
    sketch.update(torch.arange(1, 1002)[:, None] * torch.tensor([1, 10, 100]))
    return sketch


class TestFixedThreshold:
    """Numbers of the user, for all layers or for each."""

    def test_one_number_is_the_threshold_of_all_layers(self) -> None:
        """No distribution is needed."""
        assert resolve_thresholds(FixedThreshold(12), LAYERS, None) == (12.0, 12.0, 12.0)

    def test_numbers_per_layer_come_in_the_order_of_the_layers(self) -> None:
        """Layers that are not asked for may have one too."""
        rule = FixedThreshold({3: 1.5, 7: 2, 9: 4, 20: 8})

        assert resolve_thresholds(rule, (9, 3), None) == (4.0, 1.5)

    def test_missing_layer_is_named(self) -> None:
        """The error says which layers have a threshold and which do not."""
        with pytest.raises(OptionError, match=re.escape("Layers `[7, 9]` have no threshold; `[3, 4]` have one.")):
            resolve_thresholds(FixedThreshold({4: 2.0, 3: 1.0}), LAYERS, None)

    def test_rule_does_not_follow_changes_of_what_it_was_made_from(self) -> None:
        """It is a value: hashable, equal to its like, copied and pickled."""
        values = {3: 1.0}
        rule = FixedThreshold(values)
        values[3] = 2.0

        assert rule == FixedThreshold({3: 1.0}) == copy.deepcopy(rule) == pickle.loads(pickle.dumps(rule))
        assert hash(rule) == hash(FixedThreshold({"3": 1.0}))
        assert hash(FixedThreshold(1)) == hash(FixedThreshold(1.0))


class TestRulesOfADistribution:
    """Quantiles and interquartile ranges of a distribution."""

    @pytest.mark.parametrize("q", [0.0, 0.5, 0.9, 1.0])
    def test_quantile_rule_takes_the_quantile_of_each_layer(self, q) -> None:
        """Layers come in the order asked for, not in that of the distribution."""
        expected = 1 + math.floor(1000 * q)

        assert resolve_thresholds(QuantileThreshold(q), (9, 3), known()) == pytest.approx(
            (100 * expected, expected), rel=0.01
        )

    def test_iqr_rule_follows_its_formula(self) -> None:
        """The threshold is Q3 + k * (Q3 - Q1)."""
        thresholds = resolve_thresholds(IQRThreshold(k=2.0), LAYERS, known())

        assert thresholds == pytest.approx([scale * (751 + 2 * 500) for scale in (1, 10, 100)], rel=0.05)

    def test_iqr_rule_has_a_least_range_and_a_floor(self) -> None:
        """A layer whose norms are all the same has a threshold above them."""
        sketch = QuantileSketch(LAYERS)
        sketch.update(torch.full((20, 3), 2.0))

        assert resolve_thresholds(IQRThreshold(k=1.5, min_iqr=0.5), LAYERS, sketch) == (2.75,) * 3
        assert resolve_thresholds(IQRThreshold(floor=5), LAYERS, sketch) == (5,) * 3

    @pytest.mark.parametrize("rule", [QuantileThreshold(), IQRThreshold()])
    @pytest.mark.parametrize("distribution", [None, QuantileSketch(LAYERS)])
    def test_without_norms_there_is_no_threshold(self, rule, distribution) -> None:
        """Nothing is called high before something was seen."""
        assert resolve_thresholds(rule, LAYERS, distribution) is None

    def test_one_layer_without_norms_is_enough_for_no_threshold(self) -> None:
        """There are thresholds for all layers or for none."""
        sketch = QuantileSketch(LAYERS)
        sketch.update(torch.ones(20, 2), layers=(3, 7))

        assert resolve_thresholds(IQRThreshold(), LAYERS, sketch) is None
        assert resolve_thresholds(IQRThreshold(), (3, 7), sketch) is not None

    def test_layer_outside_the_distribution_is_an_error(self) -> None:
        """The error names it and the layers that are there."""
        with pytest.raises(OptionError, match=re.escape("Layers `[8]` are not in this distribution")):
            resolve_thresholds(IQRThreshold(), (3, 8), known())

    def test_reference_rule_needs_its_estimator(self) -> None:
        """It has a state, so a distribution says nothing about it."""
        with pytest.raises(OptionError, match="`ReferenceEstimator`"):
            resolve_thresholds(ReferenceThreshold(), LAYERS, known())


class TestValidation:
    """What no rule can be made of."""

    @pytest.mark.parametrize("rule", [IQRThreshold, ReferenceThreshold])
    @pytest.mark.parametrize("name", ["k", "min_iqr", "floor"])
    @pytest.mark.parametrize("value", [-1, math.nan, math.inf, "1", None, True, 10**400])
    def test_numbers_below_zero_and_no_numbers_are_errors(self, rule, name, value) -> None:
        """The message has the name, the value and what is allowed."""
        with pytest.raises(OptionError) as error:
            rule(**{name: value})

        assert str(error.value) == f"`{name}={value!r}` is not allowed. Use a number from 0 up."

    @pytest.mark.parametrize("q", [-0.1, 1.1, math.nan, "0.5", None, False])
    def test_quantile_is_between_0_and_1(self, q) -> None:
        """A percentage is refused like any other value."""
        with pytest.raises(OptionError, match=re.escape(f"`q={q!r}` is not allowed.")):
            QuantileThreshold(q)

    @pytest.mark.parametrize("warm_up", [-1, 2.5, None, True])
    def test_warm_up_is_an_integer(self, warm_up) -> None:
        """It counts decode steps."""
        with pytest.raises(OptionError, match=re.escape(f"`warm_up={warm_up!r}` is not allowed.")):
            ReferenceThreshold(warm_up=warm_up)

    @pytest.mark.parametrize(
        "values", [-1.0, math.nan, math.inf, "5", None, True, {}, {-1: 2.0}, {"q": 2.0}, {1.5: 2.0}, {True: 2.0}]
    )
    def test_fixed_values_are_norms(self, values) -> None:
        """Neither a norm below 0 nor a layer counted from the end can be meant."""
        with pytest.raises(OptionError, match=re.escape(f"`values={values!r}` is not allowed.")):
            FixedThreshold(values)

    def test_wrong_value_of_one_layer_is_named(self) -> None:
        """The message says of which layer it is."""
        with pytest.raises(OptionError, match=re.escape("`values[4]=-2` is not allowed.")):
            FixedThreshold({3: 1, 4: -2})


class TestThresholdRule:
    """What a user writes becomes a rule."""

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (1300, FixedThreshold(1300)),
            (0.5, FixedThreshold(0.5)),
            ({21: 1300, 22: 1550.0}, FixedThreshold({21: 1300, 22: 1550})),
            ({"21": 1300}, FixedThreshold({21: 1300})),
            ("iqr", IQRThreshold()),
            ("quantile", QuantileThreshold()),
            ("reference", ReferenceThreshold()),
            ({"rule": "quantile", "q": 0.95}, QuantileThreshold(0.95)),
            ({"rule": "iqr", "k": 2.0}, IQRThreshold(k=2.0)),
            ({"rule": "reference", "warm_up": 20, "floor": 3}, ReferenceThreshold(warm_up=20, floor=3)),
            ({"rule": "fixed", "values": {"3": 2}}, FixedThreshold({3: 2})),
            (IQRThreshold(k=3.0), IQRThreshold(k=3.0)),
        ],
    )
    def test_forms_of_a_rule(self, value, expected) -> None:
        """Rules, numbers, numbers per layer, names, and names with fields are understood."""
        rule = threshold_rule(value)

        assert rule == expected
        assert type(rule) is type(expected)

    @pytest.mark.parametrize("value", [None, True, [1, 2], {}, {"q": 0.5}, {"21": 1, "q": 0.5}, math.nan, -3, b"iqr"])
    def test_other_value_is_an_error(self, value) -> None:
        """The message names the value and what is allowed."""
        with pytest.raises(OptionError, match=f"={re.escape(repr(value))}` is not allowed. Use a n"):
            threshold_rule(value)

    @pytest.mark.parametrize("value", ["iqrs", "IQR", {"rule": "iqe"}])
    def test_misspelt_rule_gets_a_hint(self, value) -> None:
        """The closest name is proposed."""
        with pytest.raises(OptionError, match=re.escape("Did you mean `iqr`?")):
            threshold_rule(value)

    def test_misspelt_field_gets_a_hint(self) -> None:
        """The fields of the rule are listed, and the closest one is proposed."""
        with pytest.raises(OptionError) as error:
            threshold_rule({"rule": "reference", "warmup": 3})

        assert str(error.value) == (
            "The threshold rule `reference` has no field `warmup`. Use `k`, `min_iqr`, `floor`, `warm_up`. "
            "Did you mean `warm_up`?"
        )

    def test_a_running_rule_has_no_threshold_beforehand_and_is_not_read(self) -> None:
        """Whatever is known of the layers, and whatever the layers; other rules can be read."""
        assert resolve_thresholds(RunningThreshold(), LAYERS, known()) is None
        assert [needs_distribution(threshold_rule(name)) for name in ("running", 3.0, "iqr", "quantile")] == [
            *(False, False),
            *(True, True),
        ]
        assert readable_rule("iqr") == IQRThreshold()
        with pytest.raises(OptionError, match='can only be acted on, not read.*here use "iqr"'):
            readable_rule({"rule": "running", "k": 2})

    @pytest.mark.parametrize("field", [{"k": -1}, {"k": "x"}, {"warm_up": 0}, {"warm_up": 1.5}, {"warm_up": True}])
    def test_fields_of_the_running_rule_are_checked(self, field) -> None:
        """By their names."""
        with pytest.raises(OptionError, match=f"`{next(iter(field))}="):
            RunningThreshold(**field)

    def test_fixed_rule_needs_its_values(self) -> None:
        """A rule without a default says which field it lacks."""
        with pytest.raises(OptionError, match="rule `fixed` lacks `values`"):
            threshold_rule("fixed")

    @pytest.mark.parametrize("name", [5, None, ["iqr"]])
    def test_name_of_a_rule_is_a_text(self, name) -> None:
        """Anything else is refused, even what has no hash."""
        with pytest.raises(OptionError, match=re.escape(f"`threshold={name!r}` is not allowed")):
            threshold_rule({"rule": name})


class TestPSquare:
    """The online quantile is that of Jain and Chlamtac."""

    def test_example_of_the_paper(self) -> None:
        """Estimator and oracle both end at the median that the paper prints."""
        estimator = PSquare(0.5)
        for sample in WORKED_EXAMPLE:
            estimator.add(sample)

        assert estimator.value == pytest.approx(4.44, abs=0.005)
        assert p_square(WORKED_EXAMPLE, 0.5)[-1] == pytest.approx(4.44, abs=0.005)

    @pytest.mark.parametrize("name", streams(5))
    @pytest.mark.parametrize("q", [0.1, 0.25, 0.5, 0.75, 0.9])
    def test_estimate_is_that_of_the_oracle_after_every_sample(self, name, q) -> None:
        """The same stream gives the same numbers all along."""
        for column in streams()[name].T.tolist():
            estimator = PSquare(q)
            estimates = []
            for sample in column:
                estimator.add(sample)
                estimates.append(estimator.value)

            assert estimates[:5].count(None) == 4
            assert estimates == p_square(column, q)

    @given(st.lists(st.integers(0, 6).map(float), max_size=60), st.sampled_from([0.25, 0.75]))
    def test_ties_take_the_branches_of_the_oracle(self, samples, q) -> None:
        """Samples that equal a marker are counted in the cell that the paper says."""
        estimator = PSquare(q)
        for sample in samples:
            estimator.add(sample)

        assert [estimator.value] == (p_square(samples, q) or [None])[-1:]

    def test_estimate_comes_near_the_quantile(self) -> None:
        """On many lognormal samples the quartiles are found within two percent."""
        samples = np.random.default_rng(1).lognormal(3, 0.5, size=5000)
        for q in (0.25, 0.75):
            estimator = PSquare(q)
            for sample in samples.tolist():
                estimator.add(sample)

            assert estimator.value == pytest.approx(np.quantile(samples, q), rel=0.02)

    def test_first_five_samples_give_their_median(self) -> None:
        """The algorithm starts with the middle one, whatever quantile is asked for."""
        samples = [5.0, 1.0, 4.0, 2.0, 9.0]
        estimator = PSquare(0.9)
        for sample in samples:
            assert estimator.value is None
            estimator.add(sample)

        assert estimator.value == statistics.median(samples)

    def test_what_is_not_finite_is_left_out(self) -> None:
        """NaN and infinity change neither the estimate nor the count."""
        plain, disturbed = PSquare(0.75), PSquare(0.75)
        for sample in WORKED_EXAMPLE:
            plain.add(sample)
            for x in (math.nan, sample, math.inf, -math.inf):
                disturbed.add(x)

        assert disturbed.value == plain.value
        assert disturbed.num_samples == plain.num_samples == len(WORKED_EXAMPLE)

    def test_copy_goes_its_own_way(self) -> None:
        """Samples of the one do not reach the other."""
        estimator = PSquare(0.5)
        for sample in WORKED_EXAMPLE:
            estimator.add(sample)
        twin = estimator.copy()
        before = twin.value
        for sample in WORKED_EXAMPLE:
            estimator.add(sample)

        assert (twin.value, twin.num_samples) == (before, 20)
        assert estimator.value != before

    @pytest.mark.parametrize("q", [0, 1, -0.5, 2, math.nan, "0.5", True])
    def test_quantile_is_strictly_between_0_and_1(self, q) -> None:
        """The extremes need no estimate."""
        with pytest.raises(OptionError, match=re.escape(f"`q={q!r}` is not allowed.")):
            PSquare(q)


class TestReferenceEstimator:
    """The paper's rule over a stream of decode steps."""

    @pytest.mark.parametrize("name", streams(5))
    @pytest.mark.parametrize(
        "rule", [ReferenceThreshold(), ReferenceThreshold(k=3, min_iqr=50, floor=60, warm_up=0), ReferenceThreshold(0)]
    )
    def test_thresholds_are_those_of_the_oracle_after_every_step(self, name, rule) -> None:
        """Warm-up, quartiles, least range and floor agree for three layers."""
        rows = streams()[name].tolist()
        estimator = ReferenceEstimator(rule, LAYERS)
        thresholds = []
        for row in rows:
            estimator.add(row)
            thresholds.append(estimator.thresholds)

        assert thresholds == reference_thresholds(
            rows, k=rule.k, min_iqr=rule.min_iqr, floor=rule.floor, warm_up=rule.warm_up
        )

    @pytest.mark.parametrize(("warm_up", "first"), [(0, 5), (3, 5), (5, 5), (6, 6), (500, 500)])
    def test_first_threshold_comes_with_the_last_sample_of_the_warm_up(self, warm_up, first) -> None:
        """Before that, and before five samples, there is none."""
        estimator = ReferenceEstimator(ReferenceThreshold(warm_up=warm_up), LAYERS)
        for number in range(1, first + 1):
            assert estimator.thresholds is None
            estimator.add([float(number)] * 3)

        assert estimator.thresholds is not None

    def test_layers_do_not_influence_each_other(self) -> None:
        """Each layer has the threshold that it has alone."""
        rows = streams(600)["lognormal"]
        together = ReferenceEstimator(ReferenceThreshold(), LAYERS)
        alone = [ReferenceEstimator(ReferenceThreshold(), (layer,)) for layer in LAYERS]
        for row in rows.tolist():
            together.add(row)
            for estimator, norm in zip(alone, row, strict=True):
                estimator.add([norm])

        assert together.thresholds == sum((estimator.thresholds for estimator in alone), ())

    def test_layer_that_lacks_samples_delays_the_thresholds(self) -> None:
        """A norm that is not finite is no sample of its layer."""
        estimator = ReferenceEstimator(ReferenceThreshold(warm_up=10), (3, 7))
        estimator.add([1.0, math.nan])
        for number in range(9):
            estimator.add([float(number), 1.0])
        assert estimator.thresholds is None

        estimator.add([1.0, 1.0])
        assert estimator.thresholds is not None

    def test_copy_goes_its_own_way(self) -> None:
        """Rows added to the one do not reach the other."""
        estimator = ReferenceEstimator(ReferenceThreshold(warm_up=5), LAYERS)
        for row in streams(50)["lognormal"].tolist():
            estimator.add(row)
        twin = estimator.copy()
        before = twin.thresholds
        for row in streams(50)["outliers"].tolist():
            estimator.add(row)

        assert twin.thresholds == before != estimator.thresholds
        assert (twin.rule, twin.layers) == (estimator.rule, LAYERS)

    @pytest.mark.parametrize("row", [[], [1.0, 2.0], [1.0] * 4])
    def test_row_has_one_norm_per_layer(self, row) -> None:
        """Another row is refused before anything is counted."""
        estimator = ReferenceEstimator(ReferenceThreshold(warm_up=0), LAYERS)
        with pytest.raises(OptionError, match=f"A row of `{len(row)}` norms does not fit `3` layers"):
            estimator.add(row)
