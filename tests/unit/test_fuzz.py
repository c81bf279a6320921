"""A sample of the cases of `make fuzz`, and all in which something was once found."""

from __future__ import annotations

import time

import pytest

from tests.support.fuzz import run

SAMPLE = 60
SECONDS = 15.0


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """Load what all cases need, which is not in the time of the first one."""
    run.warm_up()


@pytest.mark.parametrize(("surface", "seed"), run.corpus())
def test_what_was_found_stays_mended(surface: str, seed: int) -> None:
    """Neither a bare error nor a hang."""
    run.run_case(surface, seed)


@pytest.mark.parametrize("surface", run.SURFACES)
def test_a_sample_of_cases_ends_well(surface: str) -> None:
    """As many as there is time for, the same ones each time."""
    end = time.monotonic() + SECONDS / len(run.SURFACES)
    for seed in range(SAMPLE):
        run.run_case(surface, seed)
        if time.monotonic() > end:
            break


def test_a_bare_error_and_a_hang_are_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is printed once, with the case that it came up in."""

    def fail(rng: object) -> None:
        msg = "bare"
        raise KeyError(msg)

    def hang(rng: object) -> None:
        while True:
            pass

    monkeypatch.setattr(run, "SURFACES", {"fail": fail, "hang": hang})
    monkeypatch.setattr(run, "LONGEST", 1)
    assert run.main(["4"]) == 1
    out = capsys.readouterr().out
    assert '{"surface": "fail", "seed": 0, "found": "fail: KeyError' in out
    assert "2 hang: Hang" in out
