"""Plans go to plain JSON and come back as they were."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langnorm.errors import OptionError
from langnorm.interventions.options import Intervention, Recursion, Steering, Suppression
from langnorm.interventions.plan import Plan, Plans
from langnorm.norms.thresholds import FixedThreshold, IQRThreshold, QuantileThreshold, RunningThreshold

SHARES = st.floats(0.01, 0.99)
NORMS = st.floats(0, 1e30)
LAYERS = st.sampled_from(["late", "deep", "middle", "all"]) | st.lists(st.integers(-5, 5), min_size=1)
KNOWN: st.SearchStrategy[Any] = st.one_of(
    st.builds(IQRThreshold, k=st.floats(0, 9)),
    st.builds(QuantileThreshold, q=SHARES),
    st.builds(FixedThreshold, NORMS | st.dictionaries(st.integers(0, 40), NORMS, min_size=1)),
)
COMMON: dict[str, st.SearchStrategy[Any]] = {
    "layers": LAYERS,
    "threshold": KNOWN | st.builds(RunningThreshold, k=st.floats(0, 9), warm_up=st.integers(1, 99)),
}
OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "recursion": st.builds(Recursion, alpha=SHARES, max_extra=st.integers(0, 9), block=st.integers(1, 3), **COMMON)
    | st.builds(Recursion, only_decode=st.just(False), layers=LAYERS, threshold=KNOWN),
    "steering": st.builds(Steering, beta=SHARES, cos_min=st.floats(-1, 1), **COMMON)
    | st.builds(Steering, trigger=st.just("slack"), low_k=st.integers(1, 99), gamma=st.floats(0, 9), **COMMON),
    "suppression": st.builds(
        Suppression, mode=st.sampled_from(["high", "random"]), action=st.sampled_from(["mul", "clamp"]), **COMMON
    )
    | st.builds(
        Suppression,
        mode=st.just("mask"),
        layers=st.just((3, 8)),
        mask=st.tuples(*[st.lists(st.integers(0, 99), max_size=5)] * 2),
    ),
}


LOOPS = st.builds(Recursion, mode=st.just("block"), num_loops=st.integers(1, 9), anchor=SHARES) | st.builds(
    Recursion,
    mode=st.just("block"),
    on=st.just("peaks"),
    layers=st.just("late") | st.integers(0, 9).map(lambda first: [first, first + 1]),
    threshold=COMMON["threshold"],
)


@st.composite
def loop_plans(draw: st.DrawFn) -> Plan[Any]:
    """Draw the plan of a block loop above the layers of all others, which has one threshold."""
    first, options = draw(st.integers(41, 60)), draw(LOOPS)
    thresholds = draw(st.none() | st.tuples(NORMS)) if options.on == "peaks" else None
    return Plan(options, tuple(range(first, first + draw(st.integers(1, 5)))), thresholds)


@st.composite
def any_plan(draw: st.DrawFn, name: str) -> Plan[Any] | None:
    """Draw None or a plan with any options."""
    if name == "recursion" and draw(st.booleans()):
        return draw(loop_plans())
    layers = draw(st.lists(st.integers(0, 40), min_size=1, max_size=4, unique=True))
    thresholds = draw(st.none() | st.tuples(*[NORMS] * len(layers)))
    plan = Plan(draw(OPTIONS[name]), tuple(sorted(layers)), thresholds)
    return draw(st.sampled_from([None, plan]))


@given(plans=st.builds(Plans, **{name: any_plan(name) for name in OPTIONS}))
def test_plans_survive_json(plans: Plans) -> None:
    """Options, layers and thresholds are the same afterwards."""
    assert Plans.from_dict(json.loads(json.dumps(plans.to_dict(), allow_nan=False))) == plans


@pytest.mark.parametrize(
    ("plans", "said"),
    [
        ({"recursoin": {}}, "There is no intervention `recursoin`.*Did you mean `recursion`"),
        ({"recursion": {"options": {}}}, "`layers`"),
        ({"steering": {"options": {"bta": 1}, "layers": [1], "thresholds": None}}, "no option `bta`"),
        ({"steering": {"options": {}, "layers": [], "thresholds": None}}, "not a selection"),
        ({"steering": {"options": {}, "layers": [1], "thresholds": [1.0, 2.0]}}, "one norm for each"),
        ({"steering": {"options": {}, "layers": [1], "thresholds": ["x"]}}, "thresholds"),
        ({"steering": {"options": {}, "layers": "late", "thresholds": None}}, "a list of indices"),
        (
            {"recursion": {"options": {"mode": "block"}, "layers": [3, 5], "thresholds": None}},
            r"layers \[3, 5\] of `recursion` do not follow each other.*`layers=\[3, 4, 5, 6\]`",
        ),
        (
            {"recursion": {"options": {"mode": "block"}, "layers": [3, 4], "thresholds": [1.0, 2.0]}},
            r"one norm for each of the layers `\[4\]`",
        ),
    ],
)
def test_other_dicts_are_refused(plans: dict[str, Any], said: str) -> None:
    """The error says what is wrong."""
    with pytest.raises(OptionError, match=said):
        Plans.from_dict(plans)


@pytest.mark.parametrize("options", [Steering(), Suppression()])
def test_states_inside_a_block_stay_as_they_are(options: Intervention) -> None:
    """What else acts does so before the block, or from its last layer on."""
    loop = Plan(Recursion(mode="block"), (3, 4, 5), None)
    for layers in ((2,), (5, 6)):
        assert Plans(loop, **{options.name: Plan(options, layers, None)}).layers == tuple(sorted({5, *layers}))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=rf"`{options.name}` .* after the layers \[4\], inside the block"):
        Plans(loop, **{options.name: Plan(options, (2, 4, 5), None)})  # type: ignore[arg-type]


def test_a_block_loop_needs_thresholds_at_peaks_only() -> None:
    """Elsewhere it is active without, and the prompt is touched by `on="prefill"` alone."""
    by_on = {on: Plans(Plan(Recursion(mode="block", on=on), (3, 4), None)) for on in ("prefill", "decode", "peaks")}
    assert all(plans.layers == (4,) for plans in by_on.values())
    assert {on for on, plans in by_on.items() if plans.act_on_prompt} == {"prefill"}
    assert not Plans(Plan(Recursion(mode="block", on="peaks", threshold="iqr"), (3, 4), None)).layers


@pytest.mark.parametrize("kind", [Recursion, Steering, Suppression])
@pytest.mark.parametrize("layers", [5, [], (), None, b"late", {1, 2}, [True], ["1"], [1.5]])
def test_layers_that_are_no_selection_are_refused(kind: type[Intervention], layers: Any) -> None:
    """When the options are made, with what was given."""
    with pytest.raises(OptionError) as error:
        kind(layers=layers)
    assert repr(layers) in str(error.value)
