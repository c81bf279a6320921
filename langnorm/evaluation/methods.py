"""What an evaluation compares: ways to answer a question, by name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from langnorm.chat.settings import check_call_options
from langnorm.errors import OptionError, closest
from langnorm.selection.options import Selection
from langnorm.selection.ranking import Candidate, Ranking, leading_answer, rank_candidates, settled_ranking

BASELINE = "baseline"
"""One answer as the model gives it: what the others are compared with."""

SAMPLES = "samples"
"""The run whose n sampled answers all selections choose from."""

_NAME_OF_RUN = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True, slots=True)
class Method:
    """A way to answer a question.

    Attributes:
        name: What reports call it.
        description: What it does, in a few words.
        run: Which answers it takes: the name of a run, of letters, digits, `.`, `_` and `-`. Runs other than `samples`
            give one answer to each question.
        options: Call options of its run; `samples` takes none.
        pick: Of `samples`: a selection, the expected accuracy of a random one, or whether any is right.
    """

    name: str
    description: str
    run: str
    options: Mapping[str, Any] = field(default_factory=dict)
    pick: Selection | Literal["random", "oracle"] | None = None


def known_methods(n: int) -> dict[str, Method]:
    """Return the methods that can be named, for selections among `n` samples."""
    acting: dict[str, tuple[str, dict[str, Any]]] = {
        BASELINE: ("one answer", {}),
        "recursion": ("late layers again where norms are high", {"recursion": {}}),
        "steering": ("states of high norm pulled to earlier ones", {"steering": {}}),
        "block": ("damped loop of a middle block of layers", {"recursion": {"mode": "block"}}),
        "suppression": ("states of high norm shrunk: the causal check", {"suppression": {}}),
        "suppression-random": ("as many random states shrunk", {"suppression": {"mode": "random"}}),
    }
    picking: dict[str, tuple[str, Selection | Literal["random", "oracle"]]] = {
        "selection": (f"the best of {n} by the default score", Selection(n=n)),
        "majority": (f"majority vote of {n}", Selection(n=n, vote="majority")),
        "adaptive": (
            f"majority vote of up to {n}, drawn by twos",
            Selection(n=n, vote="majority", stop="beta", window=2),
        ),
        "random": (f"a random one of {n}", "random"),
        "oracle": (f"whether any of {n} is right", "oracle"),
    }
    methods = {name: Method(name, words, name, options) for name, (words, options) in acting.items()}
    return methods | {name: Method(name, words, SAMPLES, pick=pick) for name, (words, pick) in picking.items()}


def own_method(text: str) -> Method:
    """Return the method that `NAME=OPTIONS` means: one answer with these call options, which are JSON.

    Raises:
        OptionError: There is no name of letters, digits, `.`, `_` and `-`, or it is that of the samples; or the options
            are no object of JSON, none that a call may have, or ask for several answers.
    """
    name, equals, given = text.partition("=")
    name = name.strip()
    try:
        options = json.loads(given)
    except ValueError:
        options = None
    if not (_NAME_OF_RUN.fullmatch(name) and equals and isinstance(options, dict)):
        msg = (
            f'`{text}` is not NAME=OPTIONS. Write for example `strong={{"steering": {{"beta": 0.5}}}}`, the name in '
            "letters, digits and `-`."
        )
        raise OptionError(msg)
    if name == SAMPLES:
        msg = f"`{text}` has the name of the samples that selections choose from. Give it another one."
        raise OptionError(msg)
    if several := sorted({"n", "selection"} & options.keys()):
        msg = f"`{several[0]}` of `{text}` asks for several answers. Leave it out: the named methods have selections."
        raise OptionError(msg)
    check_call_options(options, f"`{text}`")
    words = ", ".join(f"{key}={json.dumps(value)}" for key, value in options.items())
    return Method(name, words, name, options)


def resolve_methods(names: Sequence[str | Method], n: int) -> list[Method]:
    """Return methods by name, the baseline first.

    Args:
        names: Names of `known_methods`, `"selection:SCORE"` for a score of `langnorm.scores`, or methods.
        n: Number of samples that selections choose from.

    Raises:
        OptionError: There is no such method, two have one name, one chooses from more samples than are drawn, or a run
            has options of two kinds or a name that is no name of a file.
    """
    known = known_methods(n)
    methods = [known[BASELINE]]
    for name in names:
        method = name if isinstance(name, Method) else _named(name, known, n)
        if method == methods[0]:
            continue
        if any(method.name == other.name for other in methods):
            msg = f"The method `{method.name}` is given twice. Give each once, or methods of your own other names."
            raise OptionError(msg)
        if isinstance(method.pick, Selection) and method.pick.n > n:
            msg = (
                f"The method `{method.name}` chooses from {method.pick.n} samples, and `n={n}` are drawn. Draw as many."
            )
            raise OptionError(msg)
        methods.append(method)
    _check_runs(methods)
    return methods


def _check_runs(methods: Sequence[Method]) -> None:
    """Raise `OptionError` unless the answers of each run follow from its name."""
    options: dict[str, Mapping[str, Any]] = {SAMPLES: {}}
    for method in methods:
        if not _NAME_OF_RUN.fullmatch(method.run):
            msg = (
                f"`run={method.run!r}` of the method `{method.name}` is no name of a file. Use letters, digits and `-`."
            )
            raise OptionError(msg)
        if (method.run == SAMPLES) != (method.pick is not None):
            msg = (
                f"The method `{method.name}` has the run `{method.run}`, and `pick={method.pick!r}`. Give a `pick` to "
                f"those of the run `{SAMPLES}` alone."
            )
            raise OptionError(msg)
        if method.options.get("n", 1) != 1:
            msg = f"The method `{method.name}` asks for several answers, by `n`. Leave it out: selections have several."
            raise OptionError(msg)
        if options.setdefault(method.run, method.options) != method.options:
            msg = (
                f"The method `{method.name}` has other options than its run `{method.run}` has already. Give it a "
                "`run` of its own."
            )
            raise OptionError(msg)


def _named(name: str, known: Mapping[str, Method], n: int) -> Method:
    if name in known:
        return known[name]
    kind, _, score = name.partition(":")
    if kind == "selection" and score:
        return Method(name, f"the best of {n} by {score}", SAMPLES, pick=Selection(n=n, score=score))
    msg = f"There is no method `{name}`. There are {', '.join(known)} and selection:SCORE."
    raise OptionError(msg + closest(name, known))


def check_scores(methods: Sequence[Method], *, has_lens: bool) -> None:
    """Raise `OptionError` unless the samples of an evaluation keep what all selections read.

    Args:
        methods: The methods.
        has_lens: Whether messages keep how late tokens settled.
    """
    for method in methods:
        pick = method.pick
        if not isinstance(pick, Selection):
            continue
        if pick.needs_updates or pick.needs_mean_states:
            what, mend = "hidden states, which messages do not keep", "Leave it out."
        elif pick.needs_lens and not has_lens:
            what, mend = "how late tokens settled", "Give the chat model `lens=True`, or leave it out."
        else:
            continue
        msg = f"The score of the method `{method.name}` reads {what}, and samples are ranked by their messages. {mend}"
        raise OptionError(msg)


def drawn_ranking(selection: Selection, candidates: Sequence[Candidate]) -> Ranking:
    """Return the ranking of as many of n candidates as the selection would have drawn."""
    stopping = selection.stopping
    if stopping:
        for end in range(stopping.window, selection.n, stopping.window):
            if stopping.is_enough(leading_answer(selection, candidates[:end])):
                return settled_ranking(rank_candidates(selection, candidates[:end]))
    return settled_ranking(rank_candidates(selection, candidates[: selection.n]))
