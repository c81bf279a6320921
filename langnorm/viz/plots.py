"""Plots with matplotlib: norms by layer, and steps as bars. Needs the extra `viz`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from langnorm.errors import MissingDependencyError, OptionError
from langnorm.trace import NormTrace
from langnorm.viz.heat import step_heats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "os^Dvx*"  # lines differ in more than colour


def plot_layers(*traces: NormTrace, names: Sequence[str] = (), ax: Axes | None = None) -> Axes:
    """Plot the mean norm of answers by layer, on a logarithmic axis: norms grow by orders of magnitude.

    Ask with `layers="all"` for a whole curve.

    Args:
        *traces: The answers.
        names: Of the answers, for the legend.
        ax: Where to; by default a new figure.

    Returns:
        The axes; `axes.figure.savefig("layers.png")` writes them.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OptionError: No trace has norms, or there are not as many names as traces.
    """
    if names and len(names) != len(traces):
        msg = f"`names={names!r}` does not fit. Give {len(traces)} names, one for each trace."
        raise OptionError(msg)
    shown = [(trace, name) for trace, name in zip(traces, names or [""] * len(traces), strict=True) if trace.mean]
    if not shown:
        msg = "There are no norms to plot. Give a NormTrace of two tokens or more."
        raise OptionError(msg)
    axes = ax or _new_axes(6.4, 4.0)
    from matplotlib.ticker import MaxNLocator

    for i, (trace, name) in enumerate(shown):
        axes.plot(trace.layers, trace.mean or (), marker=_MARKERS[i % len(_MARKERS)], label=_plain(name) or None)
    axes.set(xlabel="decoder layer", ylabel="mean l2 norm of the hidden state", yscale="log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if names:
        axes.legend()
    return axes


def plot_steps(trace: NormTrace, *, texts: Sequence[str] = (), ax: Axes | None = None) -> Axes:
    """Plot how large the norms of each step are as bars: its intensity, or, where that is unknown, its rank.

    Args:
        trace: The answer.
        texts: Of its steps, as `trace.step_texts(message)` returns them; their beginnings stand beside the bars.
        ax: Where to; by default a new figure, whose height fits the steps.

    Returns:
        The axes.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OptionError: There are no steps, or not as many texts.
    """
    if not trace.steps or (texts and len(texts) != len(trace.steps)):
        msg = f"This trace has {len(trace.steps)} steps, and there are {len(texts)} texts. Give a text for each step."
        raise OptionError(msg)
    heats, word = step_heats(trace)
    axes = ax or _new_axes(8.0, 1.0 + 0.3 * len(heats))
    places = range(1, len(heats) + 1)
    known = [heat for heat in heats if heat is not None]
    colours = ["#c64902" if known and heat == max(known) else "#fecb62" for heat in heats]
    axes.barh(places, [heat or 0.0 for heat in heats], color=colours, edgecolor="#742805")
    axes.set(xlim=(0, 1), xlabel=word, ylabel="" if texts else "step")
    labels = [_label(i, text) for i, text in zip(places, texts, strict=True)] if texts else list(map(str, places))
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    return axes


def _label(number: int, text: str) -> str:
    line = " ".join(text.split())
    return f"{_plain(line if len(line) <= 40 else line[:39] + '…')}  {number}"


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # matplotlib would read formulas


def _new_axes(width: float, height: float) -> Axes:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        msg = 'Plots need matplotlib. Install it: `pip install "langnorm[viz]"`.'
        raise MissingDependencyError(msg) from error
    # Not by pyplot, which would keep every figure and look for a screen.
    axes: Axes = Figure(figsize=(width, height), layout="constrained").add_subplot()
    return axes
