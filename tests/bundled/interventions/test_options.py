"""Options are checked when they are made, and a dict works wherever an object does."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from langnorm import ChatLangNorm, NormTrace, Recursion, Steering, Suppression
from langnorm.checks import build_options
from langnorm.errors import OptionError
from langnorm.interventions.random_draws import draw_uniform
from langnorm.norms.layers import select_layers
from langnorm.norms.thresholds import FixedThreshold, IQRThreshold, QuantileThreshold, RunningThreshold


def test_defaults_are_the_papers() -> None:
    """The constants of the paper's code, but for the strength of steering, by which real models answer worse."""
    assert Recursion() == Recursion.paper()
    assert asdict(Recursion.demo()) == asdict(Recursion()) | {"max_extra": 10, "growth_eps": 0.01, "blowup": 7.0}
    steering = Steering()
    assert (steering.bank_size, steering.low_k, steering.gamma, steering.p_inject) == (32, 40, 1.0, 0.2)
    assert (steering.beta, steering.cos_min, steering.cooldown) == (0.1, 0.5, 32)
    assert steering.trigger == "peak"
    assert Suppression().factor == 0.1
    assert {kind().rule for kind in (Recursion, Steering, Suppression)} == {RunningThreshold(k=1.5, warm_up=16)}


def test_the_layers_of_a_recursion_follow_its_mode() -> None:
    """The late ones one by one, or the block in the middle; what was given stands."""
    assert (Recursion().layers, Recursion(mode="block").layers) == ("late", "middle")
    assert Recursion(mode="block", layers="late").layers == "late"
    assert Recursion(mode="block", layers=[-3, -2]).layers == (-3, -2)
    loop = Recursion(mode="block")
    assert (loop.on, loop.num_loops, loop.anchor) == ("decode", 2, 0.5)


def test_presets_take_options() -> None:
    """A preset is a starting point."""
    assert Recursion.demo(max_extra=2, layers=[3]).layers == (3,)


@pytest.mark.parametrize(
    ("threshold", "rule"),
    [
        ("iqr", IQRThreshold()),
        ("running", RunningThreshold()),
        ({"rule": "running", "k": 3, "warm_up": 50}, RunningThreshold(3, 50)),
        ({"rule": "quantile", "q": 0.8}, QuantileThreshold(0.8)),
        ({9: 80.0}, FixedThreshold({9: 80.0})),
        (7, FixedThreshold(7)),
    ],
)
def test_a_threshold_comes_in_any_form(threshold: Any, rule: Any) -> None:
    """As in the option `threshold`."""
    assert Recursion(threshold=threshold).rule == rule


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (Recursion, {"alpha": 0}, "`alpha=0` of `recursion` is not allowed. Use a number above 0, to 1"),
        (Recursion, {"alpha": 1.1}, "alpha"),
        (Recursion, {"max_extra": -1}, "an integer from 0"),
        (Recursion, {"max_extra": 1.5}, "max_extra"),
        (Recursion, {"blowup": 0.9}, "a number from 1"),
        (Recursion, {"growth_eps": "x"}, "any number"),
        (Recursion, {"block": 0}, "block"),
        (Recursion, {"only_decode": 1}, "True or False"),
        (Recursion, {"layers": "lat"}, "Did you mean `late`"),
        (Recursion, {"threshold": "irq"}, "Did you mean `iqr`"),
        (Recursion, {"threshold": "reference"}, "can only be read"),
        (Recursion, {"threshold": {"rule": "running", "warm_up": 0}}, "an integer from 1 up"),
        (Recursion, {"only_decode": False}, 'Give a `threshold`: "iqr"'),
        (Recursion, {"layers": ()}, "not a selection"),
        (Recursion, {"mode": "blok"}, 'Use "layer" or "block". Did you mean `block`'),
        (Recursion, {"num_loops": 3}, "`num_loops=3` of `recursion` is for the damped loop of a block of layers. Add"),
        (Recursion, {"on": "peaks"}, 'Add `mode="block"`, or leave `on` out'),
        (
            Recursion,
            {"mode": "block", "alpha": 0.5},
            '`alpha=0.5` of `recursion` is not for the loop of `mode="block"`',
        ),
        (Recursion, {"mode": "block", "only_decode": False, "threshold": "iqr"}, "leave `only_decode` out"),
        (Recursion, {"mode": "block", "on": "peak"}, "Did you mean `peaks`"),
        (Recursion, {"mode": "block", "num_loops": 0}, "an integer from 1"),
        (Recursion, {"mode": "block", "anchor": 1.5}, "a number from 0, to 1"),
        (Recursion, {"mode": "block", "threshold": "iqr"}, 'Add `on="peaks"`, or leave `threshold` out'),
        (Recursion, {"mode": "block", "layers": [3, 5]}, "layers [3, 5] of `recursion` do not follow each other"),
        (Steering, {"trigger": "peek"}, "Did you mean `peak`"),
        (Steering, {"low_k": 2}, 'Add `trigger="slack"`, or leave `low_k` out'),
        (Steering, {"trigger": "peak", "cooldown": 0}, "`cooldown=0` of `steering` is for states that have gone slack"),
        (Steering, {"bank_size": 0}, "bank_size"),
        (Steering, {"low_k": -1}, "low_k"),
        (Steering, {"p_inject": 2}, "a number from 0, to 1"),
        (Steering, {"beta": 0.0}, "beta"),
        (Steering, {"cos_min": -2}, "cos_min"),
        (Steering, {"cooldown": -1}, "cooldown"),
        (Steering, {"gamma": -0.1}, "gamma"),
        (Suppression, {"mode": "hihg"}, 'Use "high", "random" or "mask". Did you mean `high`'),
        (Suppression, {"mask": [[1]]}, 'has no use with `mode="high"`. Add `mode="mask"`'),
        (Suppression, {"mode": "mask", "mask": [[1]]}, "ascending indices such as `[20, 21]`"),
        (Suppression, {"mode": "mask", "layers": [5, 4], "mask": [[1], [2]]}, "ascending indices"),
        (Suppression, {"mode": "mask", "layers": [-1], "mask": [[1]]}, "ascending indices"),
        (Suppression, {"mode": "mask", "layers": [5]}, "for each of the layers [5]"),
        (Suppression, {"mode": "mask", "layers": [5], "mask": [[1], [2]]}, "for each of the layers [5]"),
        (Suppression, {"mode": "mask", "layers": [5], "mask": [[-1]]}, "from 0"),
        (Suppression, {"mode": "mask", "layers": [5], "mask": [[True]]}, "from 0"),
        (Suppression, {"mode": "mask", "layers": [5], "mask": "1"}, "from 0"),
        (Suppression, {"action": "zero"}, "action"),
        (Suppression, {"factor": 1.0}, "a number from 0, below 1"),
        (Suppression, {"action": "clamp", "factor": 0.5}, "`factor=0.5` of `suppression` has no use with"),
    ],
)
def test_what_is_not_allowed_is_refused(kind: type, options: dict[str, Any], said: str) -> None:
    """With the name, the value and what is allowed, and in a dict too."""
    with pytest.raises(OptionError) as error:
        kind(**options)
    assert said in str(error.value)
    with pytest.raises(OptionError):
        build_options(kind, kind.name, options)


def test_a_misspelt_option_is_refused() -> None:
    """With the closest name, by the constructor and by a call."""
    with pytest.raises(OptionError, match="`recursion` has no option `max_exta`. Did you mean `max_extra`"):
        ChatLangNorm(recursion={"max_exta": 1})
    with pytest.raises(OptionError, match=r"`steering=3` is not allowed. Use Steering\(...\)"):
        ChatLangNorm().invoke("Hi", steering=3)


def test_draws_depend_on_everything_they_should() -> None:
    """And on nothing else: they are the same whenever they are drawn, and uniform."""
    one = draw_uniform(1, 0, "steering", 5, 9)
    others = {
        draw_uniform(2, 0, "steering", 5, 9),
        draw_uniform(1, 1, "steering", 5, 9),
        draw_uniform(1, 0, "suppression", 5, 9),
    }
    assert one == draw_uniform(1, 0, "steering", 5, 9)
    assert len(others | {one, draw_uniform(1, 0, "steering", 6, 9), draw_uniform(1, 0, "steering", 5, 10)}) == 6
    numbers = [draw_uniform(0, 0, "steering", step, 0) for step in range(2000)]
    assert 0 <= min(numbers) < 0.01 < 0.99 < max(numbers) < 1
    assert 0.48 < sum(numbers) / len(numbers) < 0.52


FIXED = {"layers": [9, 10], "threshold": 1.0, "blowup": 1e9, "growth_eps": 1e9}


def ways(chat: ChatLangNorm) -> list[Any]:
    """Return the ways of asking for a recursion that runs and is never taken."""
    return [
        ChatLangNorm(engine=chat.engine, temperature=0, max_tokens=6, recursion=Recursion(**FIXED)),
        chat.bind(recursion=FIXED),
        chat.bind(recursion=Recursion(**FIXED)),
    ]


def test_an_option_of_the_model_or_of_a_call(abacus_engine) -> None:
    """As an object or a dict; the message tells what was done, and None switches it off for one call."""
    chat = ChatLangNorm(engine=abacus_engine, temperature=0, max_tokens=6)
    plain = chat.invoke("What is 3 + 4?")
    for way in ways(chat):
        reply = way.invoke("What is 3 + 4?")
        trace = NormTrace.from_message(reply)
        assert reply.content == plain.content
        assert trace.recursion is not None
        assert trace.recursion["thresholds"] == {"9": 1.0, "10": 1.0}
        assert trace.recursion["layers"]["9"]["rejected_by_growth"] == trace.tokens - 1
        assert NormTrace.from_dict(trace.to_dict()).recursion == trace.recursion
    assert NormTrace.from_message(ways(chat)[0].invoke("What is 3 + 4?", recursion=None)).recursion is None
    assert NormTrace.from_message(plain).recursion is None


def test_a_block_loop_by_a_call(abacus_engine) -> None:
    """The block in the middle on every token, or others; the message tells how often, and how far states moved."""
    chat = ChatLangNorm(engine=abacus_engine, temperature=0, max_tokens=6)
    plain = NormTrace.from_message(chat.invoke("What is 3 + 4?"))
    *_, last = block = list(select_layers("middle", abacus_engine.num_layers))
    for options, name in (
        ({}, "decode"),
        ({"on": "prefill"}, "prefill"),
        ({"on": "peaks", "threshold": {last: 1}}, ""),
    ):
        reply = chat.invoke("What is 3 + 4?", recursion={"mode": "block", **options})
        trace = NormTrace.from_message(reply)
        assert trace.recursion is not None
        assert trace.recursion["block"] == block
        counts = trace.recursion["layers"][str(last)]
        num_prompt = reply.usage_metadata["input_tokens"]
        assert counts["triggered"] == counts["tokens"] == (num_prompt if name == "prefill" else trace.tokens - 1)
        assert trace.recursion["extra_layer_passes"] == len(block) * counts["passes"] == len(block) * counts["tokens"]
        assert 0 < trace.recursion["moved"]["mean"] <= trace.recursion["moved"]["max"]
        assert trace.recursion["thresholds"] == (None if name else {str(last): 1.0})
        assert trace.mean != plain.mean
        assert NormTrace.from_dict(trace.to_dict()).recursion == trace.recursion


def test_states_inside_a_block_are_left_alone(abacus_engine) -> None:
    """By what else acts, before anything is computed."""
    chat = ChatLangNorm(engine=abacus_engine, max_tokens=6, recursion={"mode": "block", "layers": [4, 5, 6]})
    with pytest.raises(
        OptionError, match=r"`steering` is to change states after the layers \[4, 5\], inside the block"
    ):
        chat.invoke("Hi", steering={"layers": "all"})


def test_a_report_without_norms(abacus_engine) -> None:
    """With norms off, what was done is still told; there is no trace."""
    chat = ChatLangNorm(engine=abacus_engine, temperature=0, max_tokens=6, norms="off", recursion=FIXED)
    reply = chat.invoke("What is 3 + 4?")
    assert list(reply.response_metadata["langnorm"]) == ["recursion"]
    with pytest.raises(OptionError, match="carries no norms"):
        NormTrace.from_message(reply)


def test_a_layer_that_the_model_lacks_is_refused(abacus_engine) -> None:
    """Before anything is computed."""
    chat = ChatLangNorm(engine=abacus_engine, max_tokens=6)
    with pytest.raises(OptionError, match="Layer `40` is outside this model"):
        chat.invoke("Hi", recursion={"layers": [40]})
    with pytest.raises(OptionError, match=r"Layers `\[10\]` have no threshold"):
        chat.invoke("Hi", steering={"threshold": {9: 80.0}})
