"""Files are written whole, and what is at their place stays what it is."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from langnorm.errors import OptionError
from langnorm.files import check_folder, is_stream, write_atomically

posix = pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes in the file system")


def names(folder: Path) -> list[str]:
    """Returns what a folder holds."""
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced(tmp_path: Path) -> None:
    """By the new text, with nothing beside it."""
    path = tmp_path / "out.json"
    for text in ("first", "second, ünïcode"):
        write_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert names(tmp_path) == ["out.json"]


@posix
@pytest.mark.parametrize("is_there", [True, False])
def test_of_a_link_the_file_it_names_is_written(is_there: bool, tmp_path: Path) -> None:
    """The link stays a link, also through another link, and when it names what is not there yet."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    target, link, second = folder / "target.json", tmp_path / "link.json", tmp_path / "second.json"
    if is_there:
        target.write_text("old")
    link.symlink_to(Path("elsewhere", "target.json"))
    second.symlink_to(link)

    check_folder(second)
    write_atomically(second, "new")

    assert target.read_text() == "new"
    assert link.is_symlink()
    assert second.is_symlink()
    assert names(tmp_path) == ["elsewhere", "link.json", "second.json"]
    assert names(folder) == ["target.json"]


@posix
def test_a_link_to_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """Before the work and when it is written."""
    link = tmp_path / "link.json"
    link.symlink_to("missing/target.json")
    for write in (check_folder, lambda path: write_atomically(path, "text")):
        with pytest.raises(OptionError, match="link.json` cannot be written"):
            write(link)


@posix
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    """Its reader gets the text, and the pipe stays."""
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()

    check_folder(pipe)
    assert is_stream(pipe)
    write_atomically(pipe, "text")

    reader.join(30)
    assert read == ["text"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@posix
@pytest.mark.parametrize("name", ["null", "stdout"])
def test_devices_are_written_to(name: str) -> None:
    """Where nothing could be put in their place."""
    program = (
        "import sys; from pathlib import Path; from langnorm.files import *; path = Path(sys.argv[1]);"
        "check_folder(path); write_atomically(path, 'text')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"/dev/{name}"], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == ("text" if name == "stdout" else "")


@posix
def test_permissions_stay(tmp_path: Path) -> None:
    """A file that others may not read does not become one that they may."""
    path = tmp_path / "out.json"
    path.write_text("old")
    path.chmod(0o600)

    write_atomically(path, "new")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


KILLED = """
import os, signal, sys
from pathlib import Path
from langnorm import files
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomically(Path(sys.argv[1]), "half of it")
"""


@posix
def test_what_a_killed_process_left_is_removed_later(tmp_path: Path) -> None:
    """By the next that writes the same file, when nobody can be at it any more; nothing else is removed."""
    path = tmp_path / "out.json"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, path], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    (left,) = (name for name in names(tmp_path) if name != "out.json")
    others = [".out.json.partial", ".out.json.bak.partial", ".other.json.12.partial", "out.json.partial"]
    for name in others:
        (tmp_path / name).write_text("of the user")
        os.utime(tmp_path / name, (0, 0))

    write_atomically(path, "new")
    assert left in names(tmp_path)
    os.utime(tmp_path / left, (time.time() - 7200,) * 2)
    write_atomically(path, "newer")

    assert names(tmp_path) == sorted([*others, "out.json"])
    assert path.read_text() == "newer"
