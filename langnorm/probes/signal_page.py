"""The figures of the first diagnosis as one page of HTML, with plots; it needs the extra `viz`."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from langnorm.errors import MissingDependencyError
from langnorm.evaluation.intervals import change, figure, higher_or_lower, percent, points
from langnorm.evaluation.statistics import Interval
from langnorm.probes.problems import are_direct

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;font-size:.85rem;display:block;overflow-x:auto}"
    "td,th{border:1px solid #ccc;padding:.2rem .5rem;text-align:right}figure{margin:1rem 0}"
    "figcaption{font-size:.9rem;color:#555}svg{max-width:100%;height:auto}code{background:#f3f3f3}"
)


def check_plots() -> None:
    """Raise `MissingDependencyError` if what draws plots is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        msg = "Plots need matplotlib. Install it with `pip install 'langnorm[viz]'`."
        raise MissingDependencyError(msg) from error


def signal_page(figures: Mapping[str, Any], title: str) -> str:
    """Return a page of HTML that needs no other file.

    Args:
        figures: Of `signal_figures`.
        title: What it is about, such as the model's name.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    check_plots()
    rows: Sequence[Mapping[str, Any]] = figures["layers"]
    parts = [
        f"<h1>Norms of {html.escape(title)}</h1>",
        *(f"<p>{sentence}</p>" for sentence in _sentences(figures)),
        _figure(
            _norm_plot(rows),
            "Mean norms after each layer, on a logarithmic scale, and the quartiles on reasoned answers.",
        ),
        _figure(
            _difference_plot(rows),
            "By how much the mean norm is higher on reasoned than on direct answers to the same problem, with 95 % "
            "intervals; on all tokens, and on those tokens that direct answers consist of.",
        ),
        _figure(
            _share_plot(rows),
            "What the norm goes with: the share of its variance that the token's identity explains, and its rank "
            "correlation with surprisal and with position within answers.",
        ),
        _figure(_rate_plot(rows), "Share of tokens whose norm is high, by threshold rule."),
        "<h2>Attention sinks</h2>",
        _sinks(figures["sinks"]),
        "<h2>All layers</h2>",
        _table(rows),
    ]
    head = f"<meta charset='utf-8'><title>Norms of {html.escape(title)}</title><style>{_STYLE}</style>"
    return f"<!doctype html>\n<html lang='en'><head>{head}</head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"


def _sentences(figures: Mapping[str, Any]) -> list[str]:
    """Return what the figures say, in sentences."""
    late, numbers, right = figures["late"], figures["num_answers"], figures["right"]
    layers = ", ".join(map(str, figures["late_layers"]))
    auroc = late["auroc_of_right_answers"]
    sentences = [
        f"{numbers['reasoned']} reasoned answers ({figures['num_tokens']['reasoned']} tokens, "
        f"{percent(right['reasoned'])} right, {figures['cut']:.1%} cut) and {numbers['direct']} direct answers "
        f"({figures['num_tokens']['direct']} tokens, {percent(right['direct'])} right) to the same problems. "
        "Intervals are 95 % bootstrap intervals over problems.",
        f"In the late layers ({layers}), norms on reasoned answers are "
        f"{higher_or_lower(late['relative_difference'])} than on direct ones; "
        "on the tokens that direct answers consist of, "
        f"{higher_or_lower(late['relative_difference_on_the_same_tokens'])}. "
        f"{_rise(late['against_first_half'])}",
    ]
    if not math.isnan(explained := late["share_explained_by_token"]):
        sentences.append(f"Which token it is explains {explained:.0%} of the variance of norms in these layers.")
    if not math.isnan(auroc):
        sentences.append(
            f"A right answer has a higher mean norm there than a wrong one in {auroc:.0%} of pairs (50 % is chance)."
        )
    reasoned_length, direct_length = (
        figures["num_tokens"][kind] / max(1, numbers[kind]) for kind in ("reasoned", "direct")
    )
    if not are_direct(reasoned_length, direct_length):
        sentences.append(
            f"Direct answers have {direct_length:.0f} tokens and reasoned ones {reasoned_length:.0f}: asked to answer "
            "at once, this model does not, and a comparison of the two says little."
        )
    sentences.append(f"From the first layer to the last, the median norm grows {figures['growth']:.3g} times.")
    return sentences


def _rise(interval: Interval) -> str:
    if math.isnan(interval.mean):
        return ""
    by = points(interval, " points")
    if interval.low > 0:
        return f"The difference is larger there than in the first half of the layers, by {by}, as the paper has it."
    if interval.high < 0:
        return f"The difference is smaller there than in the first half of the layers, by {by}, against the paper."
    return f"It is no larger or smaller there than in the first half of the layers, as far as this can tell: {by}."


def _sinks(sinks: Mapping[str, Any]) -> str:
    if not sinks["number"]:
        return "<p>None of the tokens of the answers is an attention sink.</p>"
    texts = ", ".join(f"<code>{html.escape(repr(one['text']))}</code> ({one['number']})" for one in sinks["texts"])
    return (
        f"<p>{sinks['number']} tokens ({sinks['share']:.2%}) are attention sinks, up to "
        f"{sinks['highest_over_median']:.0f} times the median; they are left out of all other figures. Their median "
        f"position is {sinks['median_position']:.0f}. The most frequent: {texts}.</p>"
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    rules = list(rows[0]["trigger_rates"])
    names = ["layer", "median", "99 %", "reasoned/direct", "same tokens", "token", "surprisal", "position", "AUROC"]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in [*names, *rules])
    lines = []
    for row in rows:
        cells = [
            str(row["layer"]),
            f"{row['quartiles'][1]:.4g}",
            f"{row['quantile_99']:.4g}",
            *(change(row[name]) for name in ("relative_difference", "relative_difference_on_the_same_tokens")),
            figure(row["share_explained_by_token"], ".2f"),
            figure(row["correlation_with_surprisal"].mean, "+.2f"),
            figure(row["correlation_with_position"].mean, "+.2f"),
            figure(row["auroc_of_right_answers"], ".2f"),
            *(figure(row["trigger_rates"][rule], ".2%") for rule in rules),
        ]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table><tr>{head}</tr>\n" + "\n".join(lines) + "</table>"


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _norm_plot(rows: Sequence[Mapping[str, Any]]) -> str:
    axes = _Axes("norm", is_log=True)
    layers = axes.layers(rows)
    first, third = ([row["quartiles"][place] for row in rows] for place in (0, 2))
    axes.plot.fill_between(layers, first, third, alpha=0.3)
    for kind in ("reasoned", "direct"):
        axes.plot.plot(layers, [row[f"mean_{kind}"].mean for row in rows], marker=".", label=kind)
    return axes.svg()


def _difference_plot(rows: Sequence[Mapping[str, Any]]) -> str:
    axes = _Axes("relative difference, %")
    names = {"relative_difference": "all tokens", "relative_difference_on_the_same_tokens": "the same tokens"}
    for name, label in names.items():
        low, mean, high = ([100 * getattr(row[name], part) for row in rows] for part in ("low", "mean", "high"))
        axes.plot.plot(axes.layers(rows), mean, marker=".", label=label)
        axes.plot.fill_between(axes.layers(rows), low, high, alpha=0.2)
    return axes.svg(has_zero=True)


def _share_plot(rows: Sequence[Mapping[str, Any]]) -> str:
    axes = _Axes("share, or correlation")
    layers = axes.layers(rows)
    axes.plot.plot(layers, [row["share_explained_by_token"] for row in rows], marker=".", label="token (share)")
    for name in ("surprisal", "position"):
        values = [row[f"correlation_with_{name}"].mean for row in rows]
        axes.plot.plot(layers, values, marker=".", label=f"{name} (correlation)")
    return axes.svg(has_zero=True)


def _rate_plot(rows: Sequence[Mapping[str, Any]]) -> str:
    axes = _Axes("tokens above, %")
    for rule in rows[0]["trigger_rates"]:
        rates = [100 * row["trigger_rates"][rule] for row in rows]
        axes.plot.plot(axes.layers(rows), rates, marker=".", label=rule)
    return axes.svg()


class _Axes:
    """A plot over layers.

    Args:
        label: Of the vertical axis.
        is_log: Whether that is logarithmic.
    """

    def __init__(self, label: str, *, is_log: bool = False) -> None:
        from matplotlib.figure import Figure  # which needs no display, and keeps nothing open

        self._figure = Figure(figsize=(8, 3.2), layout="constrained")
        self.plot: Any = self._figure.subplots()
        self.plot.set_xlabel("layer")
        self.plot.set_ylabel(label)
        if is_log:
            self.plot.set_yscale("log")

    @staticmethod
    def layers(rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the horizontal places."""
        return [row["layer"] for row in rows]

    def svg(self, *, has_zero: bool = False) -> str:
        """Return the plot, to be put into HTML."""
        if has_zero:
            self.plot.axhline(0, color="gray", linewidth=0.8)
        self.plot.legend(fontsize="small")
        drawn = io.StringIO()
        self._figure.savefig(drawn, format="svg", metadata={"Date": None})
        text = drawn.getvalue()
        return text[text.index("<svg") :]
