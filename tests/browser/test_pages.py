"""Pages in a real browser: what they show, how one walks through them, and that texts of a model stay texts."""

from __future__ import annotations

import re
from statistics import NormalDist, fmean

import pytest

from langnorm.selection import rank
from langnorm.testing import message_with_norms
from langnorm.viz import heatmap, ranking
from tests.support.pages import HOSTILE, message_of, token_trace

WORDS = [f" word{i}" for i in range(40)]


def texts_of(tab) -> list[str]:
    """Returns the texts of all tokens on a page, as they are shown."""
    return tab.locator(".token").evaluate_all("nodes => nodes.map((node) => node.textContent)")


def shades_of(tab) -> list[int | None]:
    """Returns the shade of all tokens on a page, None for those without a colour."""
    classes = tab.locator(".token").evaluate_all("nodes => nodes.map((node) => node.className)")
    return [int(found[1]) if (found := re.search(r"\bh(\d)\b", name)) else None for name in classes]


def shade(share: float) -> int:
    """Returns the shade of a share from 0 to 1."""
    return min(9, int(share * 10))


def test_hostile_texts_stay_texts(open_page) -> None:
    """In tokens, the title, names and answers: nothing runs, nothing is loaded, and all of it can be read."""
    texts = [*HOSTILE, "\x00\x1b[31m", "\n", "end"]
    message, halved = message_of(token_trace(texts), model_name=HOSTILE[0]), token_trace(["half \ud83d", "end"])
    tab = open_page(heatmap(message, halved, title=HOSTILE[0] + "\ud83d", names=HOSTILE[:2]))
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("img").count() == 0
    shown = texts_of(tab)
    assert shown[: len(HOSTILE)] == list(HOSTILE)
    assert shown[len(HOSTILE) : -2] == ["\u2400\u241b[31m", "\u21b5\n", "end"]
    assert shown[-2].startswith("half ")
    assert tab.title() == HOSTILE[0] + "?"
    assert tab.locator("h1").inner_text().startswith(HOSTILE[0])
    assert tab.locator(".answer h2").all_inner_texts() == list(HOSTILE[:2])
    assert HOSTILE[0] in tab.locator(".answer").first.inner_text()


def test_colours_are_percentiles_and_the_hardest_step_is_named(open_page) -> None:
    """A token's colour is the mean of its percentiles; the steps with the greatest mean are named in their order."""
    trace = token_trace(WORDS)
    tab = open_page(heatmap(trace))
    expected = [shade(fmean(row)) for row in trace.token_percentiles or ()]
    shown = shades_of(tab)
    assert shown[-1] is None, "the last token was never run"
    # Percentiles travel as whole numbers of a thousandth, and shades have borders.
    assert sum(a != b for a, b in zip(expected, shown[:-1], strict=True)) <= 1
    ranked = sorted(range(8), key=lambda i: -trace.steps[i].intensity)
    assert tab.locator(".verdict b").all_inner_texts() == [f"Step {i + 1}" for i in ranked[:3]]
    assert tab.locator(".hardest .gutter span").first.inner_text() == str(ranked[0] + 1)
    numbers = [int(text) for text in tab.locator(".gutter span:last-child").all_inner_texts()]
    assert numbers == [pytest.approx(100 * step.intensity, abs=0.6) for step in trace.steps]
    tab.locator(".verdict button").nth(1).click()
    assert tab.evaluate("document.activeElement.textContent") == WORDS[trace.steps[ranked[1]].start]


def test_switches_change_what_is_shown(open_page) -> None:
    """Layer, measure, whole steps, and steps or running text."""
    trace = token_trace(WORDS)
    tab = open_page(heatmap(trace))
    tab.select_option("#layer", "10")
    expected = [shade(row[1]) for row in trace.token_percentiles or ()]
    assert sum(a != b for a, b in zip(expected, shades_of(tab), strict=False)) <= 1
    tab.select_option("#measure", "token")
    expected = [shade(NormalDist().cdf(row[1])) for row in trace.token_distances or ()]
    assert sum(a != b for a, b in zip(expected, shades_of(tab), strict=False)) <= 2
    tab.select_option("#measure", "norm")
    norms = [row[1] for row in trace.token_norms or ()]
    expected = [shade((norm - min(norms)) / (max(norms) - min(norms))) for norm in norms]
    assert sum(a != b for a, b in zip(expected, shades_of(tab), strict=False)) <= 1
    tab.select_option("#paint", "step")
    assert all(len(set(shades_of(tab)[i : i + 5])) == 1 for i in range(0, 40, 5))
    tab.uncheck("#steps")
    assert not tab.locator(".gutter").first.is_visible()


def test_without_anything_known_norms_are_ranked(open_page) -> None:
    """Among the others on the page, and the page says so."""
    trace = token_trace(WORDS, layers=(9,), is_known=False)
    tab = open_page(heatmap(trace))
    norms = [row[0] for row in trace.token_norms or ()]
    expected = [shade((sorted(norms).index(norm) + 0.5) / len(norms)) for norm in norms]
    assert shades_of(tab)[:-1] == expected
    assert "ranks on this page" in tab.locator(".caption").inner_text()
    assert tab.locator("#measure option").evaluate_all("nodes => nodes.map((node) => node.value)") == ["usual", "norm"]


def test_percentiles_and_ranks_are_not_mixed(open_page) -> None:
    """Of two answers, or of a layer of steps, whose percentiles are not known, all are ranked, and the page says so."""
    known, unknown = token_trace(WORDS, layers=(9,)), token_trace(WORDS, layers=(9,), is_known=False)
    tab = open_page(heatmap(known, unknown))
    shades = shades_of(tab)
    assert shades[: len(WORDS)] == shades[len(WORDS) :]
    assert "ranks on this page" in tab.locator(".caption").first.inner_text()
    message = message_with_norms(["One. ", "Two. ", "Three."], intensities=[0.25, 0.95, 0.05])
    tab = open_page(heatmap(message))
    assert "percentiles" in tab.locator(".caption").inner_text()
    tab.locator("#layer").select_option(index=1)
    assert "ranks on this page" in tab.locator(".caption").inner_text()
    assert "rank of the norm" in tab.locator("#measure option").first.inner_text()


def test_pointer_and_keys_show_the_numbers_of_a_token(open_page) -> None:
    """Its text, place, step, log-probability, and norm, percentile and distance of each layer, by either way."""
    trace = token_trace(WORDS)
    tab = open_page(heatmap(message_of(trace)))
    tab.locator(".token").nth(7).hover()
    detail = tab.locator("#detail")
    by_pointer = detail.inner_text()
    row = trace.token_norms[7]
    for text in ("word7", "Token 8 of 40, step 2, answer", "Log-probability -0.07", "93 %", f"{row[0]:.4g}"):
        assert text in by_pointer
    cells = detail.locator("tbody tr").first.locator("td").all_inner_texts()
    assert cells == [
        "9",
        f"{row[0]:.4g}",
        f"{round(100 * round(trace.token_percentiles[7][0], 3))} %",
        f"{trace.token_distances[7][0]:.2f}",
    ]
    tab.locator(".token").nth(39).hover()
    assert "no norms" in detail.inner_text()

    tab.locator("#steps").focus()
    while not tab.evaluate("document.activeElement.classList.contains('token')"):
        tab.keyboard.press("Tab")
    for key in ("ArrowRight", "ArrowDown", "ArrowRight", "ArrowRight", "End", "ArrowUp", "ArrowUp", "ArrowUp", "Home"):
        tab.keyboard.press(key)
    assert "Token 1 of 40" in detail.inner_text()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        tab.keyboard.press(key)
    assert detail.inner_text() == by_pointer
    assert tab.locator("[aria-selected=true]").count() == 1
    tab.keyboard.press("Escape")
    assert not detail.is_visible()


def test_what_interventions_did_is_shown(open_page) -> None:
    """At the token, which is marked, and in all."""
    trace = token_trace(WORDS)
    report = {"warning": None, "thresholds": None, "injections": [{"token": 3, "layer": 10, "cosine": 0.75}]}
    message = message_of(trace, langnorm=trace.to_dict() | {"steering": report})
    tab = open_page(heatmap(message))
    assert tab.locator(".acted").all_inner_texts() == [WORDS[3]]
    tab.locator(".token").nth(3).hover()
    assert "Steering, layer 10: pulled toward an earlier state (cosine 0.75)" in tab.locator("#detail").inner_text()
    assert "1 states were pulled" in tab.locator(".reports").inner_text()


def test_two_answers_stand_beside_each_other(open_page) -> None:
    """On one scale, each with a name; below each other on a phone."""
    one, two = token_trace(WORDS), token_trace(WORDS[:20], seed=1)
    for size, is_beside in (("desktop", True), ("phone", False)):
        tab = open_page(heatmap(one, two, names=["plain", "steered"]), size)
        left, right = (tab.locator(".answer").nth(i).bounding_box() for i in (0, 1))
        assert (left["y"] == right["y"] and left["x"] < right["x"]) is is_beside
        assert tab.locator(".answer h2").all_inner_texts() == ["plain", "steered"]
        assert len(texts_of(tab)) == 60
        tab.locator(".answer").nth(1).locator(".token").nth(3).hover()
        assert "Token 4 of 20" in tab.locator("#detail").inner_text()


def test_a_ranking_stands_in_its_order(open_page) -> None:
    """Best first, with score and votes, and the chosen one is said to be it."""
    messages = [message_of(token_trace([f" The answer is {n}."] * 9, seed=n)) for n in (4, 5, 4)]
    ranked = rank(messages, score="mean_logprob", vote="majority")
    tab = open_page(ranking(ranked))
    order = ranked[0].response_metadata["langnorm"]["selection"]["order"]
    names = tab.locator(".answer h2").all_inner_texts()
    assert names == [f"{place}. Candidate {number + 1}" for place, number in enumerate(order, 1)]
    assert tab.locator(".chosen h2").all_inner_texts() == names[:1]
    facts = tab.locator(".answer").first.locator(".facts").inner_text()
    assert facts.startswith("answer 4 · score -0.04 · 2 of the votes")


def test_steps_alone_have_colours_too(open_page) -> None:
    """Where a message has no norms of tokens, steps are what is coloured, by their intensity."""
    message = message_with_norms(["One. ", "Two. ", "Three."], intensities=[0.25, 0.95, 0.05])
    tab = open_page(heatmap(message))
    assert texts_of(tab) == ["One. ", "Two. ", "Three."]
    assert shades_of(tab) == [2, 9, 0]
    tab.locator(".token").nth(1).hover()
    assert "Step 2" in tab.locator("#detail").inner_text()
    assert "larger than 95 %" in tab.locator("#detail").inner_text()


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_a_page_is_never_wider_than_the_screen(open_page, size) -> None:
    """Also with long words and with every option shown."""
    tab = open_page(heatmap(token_trace(["x" * 300, *WORDS]), title="y" * 300), size)
    tab.locator("summary").click()
    tab.locator(".token").nth(3).hover()
    assert tab.evaluate("document.scrollingElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_axe_finds_nothing_serious(open_page, size, scheme) -> None:
    """Neither contrast nor names nor roles, with one answer or several, and the numbers of a token open."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    many = [message_of(token_trace(WORDS, seed=seed)) for seed in range(3)]
    for page in (heatmap(many[0]), ranking(rank(many, score="mean_logprob"))):
        tab = open_page(page, size, scheme)
        tab.locator("summary").click()
        tab.locator(".token").nth(3).hover()
        found = axe.run(tab).response["violations"]
        assert [(each["id"], each["impact"], each["nodes"][0]["html"]) for each in found] == []


def test_a_notebook_shows_the_page_in_a_frame_of_its_own(browser, tmp_path) -> None:
    """It works there, and reaches nothing of the notebook."""
    html = token_trace([*HOSTILE, "</iframe>", '"><b id=out>', "end"])._repr_html_()
    path = tmp_path / "notebook.html"
    path.write_text(f"<!DOCTYPE html><title>Notebook</title><body>{html}", "utf-8")
    tab = browser.new_page()
    tab.goto(path.as_uri())
    frame = tab.frame_locator("iframe")
    assert frame.locator(".token").nth(len(HOSTILE)).inner_text() == "</iframe>"
    assert tab.locator("#out").count() == 0
    reach = "(() => { try { return parent.document.title } catch { return 'apart' } })()"
    assert tab.frames[1].evaluate(reach) == "apart"
    tab.close()


def test_eight_thousand_tokens_are_quick(open_page) -> None:
    """Of 28 layers: below 5 MB, and in the best of three tries shown and at hand in less than a second."""
    page = heatmap(token_trace([f" word{i}" for i in range(8000)], tuple(range(28)), per_step=25))
    assert len(page.to_html()) < 5e6
    seconds, switched = [], []
    for _ in range(3):
        tab = open_page(page)
        seconds.append(tab.evaluate("performance.getEntriesByType('navigation')[0].domComplete") / 1000)
        tab.evaluate("document.getElementById('layer').value = '5'")
        switch = "(() => { const t = performance.now(); byId('layer').dispatchEvent(new Event('change'));"
        switched.append(tab.evaluate(switch + " document.body.offsetHeight; return performance.now() - t })()") / 1000)
        tab.close()
    assert min(seconds) < 1, seconds
    assert min(switched) < 0.5, switched
