"""Pages without a browser: what they are made of."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import escape as html_escape
from importlib.resources import files
from itertools import pairwise

import pytest

from langnorm import NormTrace
from langnorm.errors import OptionError
from langnorm.testing import message_with_norms
from langnorm.viz import heatmap, ranking
from langnorm.viz.html.view import build_view
from tests.support.pages import HOSTILE, message_of, token_trace
from tests.support.traces import READING, trace


def data_of(html: str) -> dict:
    """Returns the data in a page, as a browser would find it."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script', html, re.DOTALL)[1])


def test_a_page_has_its_parts_once_and_nothing_from_elsewhere() -> None:
    """Whatever the texts are: two scripts, one style, no address; the policy allows these and forbids all else."""
    html = heatmap(token_trace(HOSTILE), title=HOSTILE[0]).to_html()
    assert html.count("<script") == html.count("</script>") == 2
    assert html.count("<style") == html.count("</style>") == 1
    without_data = re.sub(r'id="data">.*?</script>', "", html, flags=re.DOTALL)
    assert not re.search(r"https?:|src=|href=|url\(|@import", without_data.replace(html_escape(HOSTILE[0]), ""))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
    assert policy.startswith("default-src 'none'; base-uri 'none'; ")
    style, script = (re.search(pattern, html, re.DOTALL)[1] for pattern in (r"<style>(.*?)</", r"<script>(.*?)</"))
    for text in (style, script):
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    (answer,) = data_of(html)["answers"]
    assert answer["texts"] == list(HOSTILE)


def test_a_view_has_a_column_for_each_layer() -> None:
    """Norms of four digits, percentiles in thousandths, distances in hundredths."""
    view = build_view(trace(READING, keep_tokens=True), logprobs=[-0.5, 0.0, -1.23456, -2.0], name="a", facts=["b"])
    assert view["norms"] == [[1, 3, 5], [10, 30, 50]]
    assert view["percentiles"] == [[100, 900, 40], [0, 800, 100]]
    assert view["distances"] == [[-150, 150, -300], [-200, 50, -25]]
    assert view["texts"] == ["1 +", " 1", "two", ""]
    assert view["logprobs"] == [-0.5, 0.0, -1.235, -2.0]
    assert [(step["start"], step["end"], step["low"]) for step in view["steps"]] == [(0, 2, False), (2, 4, True)]
    assert (view["unit"], view["name"], view["facts"], view["layers"]) == ("token", "a", ["b"], [9, 10])


def test_without_norms_of_tokens_steps_are_shown() -> None:
    """With their texts where a message has them, else by their tokens."""
    made = trace(READING)
    assert build_view(made)["texts"] == ["[reasoning, tokens 0 to 2]", "[answer, tokens 2 to 4]"]
    view = build_view(made, step_texts=["1 + 1", "two"])
    assert (view["unit"], view["texts"]) == ("step", ["1 + 1", "two"])
    assert view["norms"] == [[2, 5], [20, 50]]
    assert view["intensities"] == [0.45, 0.07]
    assert view["steps"][1] | {"tokens": [2, 4], "start": 1, "end": 2} == view["steps"][1]


def test_what_interventions_did_is_put_into_words() -> None:
    """Where it is known by token at the token, in all for the answer, warnings too."""
    stored = trace(READING, keep_tokens=True)
    reports = {
        "recursion": {"layers": {"9": {"triggered": 2}}, "share_of_layer_passes": 0.125, "acted_on": {"9": [0, 2]}},
        "steering": {"injections": [{"token": 2, "layer": 10, "cosine": 0.5}]},
        "suppression": {"warning": "It did nothing.", "suppressed": {"9": 0, "10": 0}},
    }
    view = build_view(NormTrace.from_dict(stored.to_dict() | stored.token_dict() | reports))
    assert view["acts"] == {
        "0": ["Recursion, layer 9: the layer was run again"],
        "2": [
            "Steering, layer 10: pulled toward an earlier state (cosine 0.50)",
            "Recursion, layer 9: the layer was run again",
        ],
    }
    assert view["reports"] == [
        "Recursion: 2 states of high norm, 12.5% of all layer passes were extra.",
        "Steering: 1 states were pulled toward earlier ones.",
        "Suppression: 0 states were shrunk.",
        "It did nothing.",
    ]


def test_what_stands_above_an_answer() -> None:
    """The model by its name alone, tokens, intensity, and with what it was compared."""
    message = message_of(token_trace(["a", "b", "c"]), model_name="/models/some.gguf", finish_reason="length")
    facts = data_of(heatmap(message).to_html())["answers"][0]["facts"]
    assert facts[:2] == ["some.gguf", "3 tokens"]
    assert facts[3:] == ["compared with the profile drawn", "cut off at the token limit"]
    unknown = data_of(heatmap(token_trace(["a", "b"], is_known=False)).to_html())["answers"][0]
    assert unknown["facts"] == ["2 tokens"]
    assert unknown["logprobs"] is None


def test_what_is_no_answer_is_refused() -> None:
    """With what to give instead."""
    with pytest.raises(OptionError, match="nothing to show"):
        heatmap()
    with pytest.raises(OptionError, match="Give 1 names"):
        heatmap(trace(), names=["a", "b"])
    for messages in ([], [message_with_norms("a")], ["a"]):
        with pytest.raises(OptionError, match="no ranking"):
            ranking(messages)


def test_a_page_is_written_whole(tmp_path) -> None:
    """In UTF-8, also with half a character in its title; a folder that is not there is an error."""
    heatmap(trace(), title="\ud83d\u00e9").save(tmp_path / "page.html")
    assert "<title>?\u00e9</title>" in (tmp_path / "page.html").read_text("utf-8")
    assert b'<iframe title="?\xc3\xa9"' in heatmap(trace(), title="\ud83d\u00e9")._repr_html_().encode()
    for name in ("absent/page.html", "a\0b"):
        with pytest.raises(OptionError, match="cannot be written"):
            heatmap(trace()).save(tmp_path / name)


def contrast(one: str, two: str) -> float:
    """Returns the contrast of two colours as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted(map(luminance, (one, two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("number", [0, 1], ids=["light", "dark"])
def test_shades_can_be_read_and_told_apart_without_colours(number) -> None:
    """Each is farther from the page than the one before in lightness alone, and its text has a contrast of 4.5."""
    style = files("langnorm.viz.html").joinpath("page.css").read_text()
    root = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[number]
    colours = dict(re.findall(r"(--[\w-]+): (#\w{6})", root))
    shades = [colours[f"--heat-{i}"] for i in range(10)]
    from_page = [contrast(shade, colours["--page"]) for shade in shades]
    assert all(a < b for a, b in pairwise(from_page))
    for i, shade in enumerate(shades):
        ink = re.search(rf"\.h{i} \{{[^}}]*color: ([^;]+);", style.replace("background: var", ""))[1]
        text = ink if ink.startswith("#") else colours[ink.removeprefix("var(").removesuffix(")")]
        assert contrast(text, shade) >= 4.5, i
