"""`langnorm` in a process of its own, on a terminal of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

COMMAND = [sys.executable, "-m", "langnorm"]


def environment(**variables: str) -> dict[str, str]:
    """Return the environment without what changes the look of output, and with `variables`."""
    looks = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE")
    kept = {name: value for name, value in os.environ.items() if name not in looks}
    return kept | {"OMP_NUM_THREADS": "1", "TERM": "xterm"} | variables


@contextlib.contextmanager
def on_terminal(*arguments: str, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start `langnorm` on a terminal of its own; yields the process and the terminal's other end."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(**variables),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_terminal(ours: int, until: bytes | None = None) -> str:
    """Return what appears on the terminal, up to `until` or the end."""
    shown = b""
    with contextlib.suppress(OSError):  # Linux' way of saying that nobody writes any more
        while (until is None or until not in shown) and (gained := os.read(ours, 4096)):
            shown += gained
    return shown.decode()
