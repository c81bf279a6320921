"""Answers on disk: whole or not at all, of one evaluation, for one process at a time."""

from __future__ import annotations

import gzip
from pathlib import Path
from random import Random

import pytest

from langnorm.errors import OptionError
from langnorm.evaluation.store import AnswerStore

WORK = {"model": "m", "n": "8"}
KEYS = [f"k{number}" for number in range(40)]


def test_what_was_appended_is_read(tmp_path: Path) -> None:
    """By run and number, also by the next process."""
    with AnswerStore(tmp_path / "e", WORK) as store:
        assert dict(store.read("baseline", KEYS)) == {}
        store.append("baseline", KEYS, {0: {"x": "ä" * 200_000}, 1: None})
        store.append("baseline", KEYS, {7: [1, 2]})
        store.append("samples", KEYS, {3: 4})
    with AnswerStore(tmp_path / "e", WORK) as store:
        assert dict(store.read("baseline", KEYS)) == {0: {"x": "ä" * 200_000}, 1: None, 7: [1, 2]}
        assert dict(store.read("samples", KEYS)) == {3: 4}


def test_wherever_a_write_was_stopped_the_rest_is_whole(tmp_path: Path) -> None:
    """What is half there is cut off, and the next answer follows what is whole."""
    with AnswerStore(tmp_path, WORK) as store:
        store.append("r", KEYS, {0: "first"})
        store.append("r", KEYS, {1: "second" * 50, 2: "third"})
        path = tmp_path / "r.jsonl.gz"
        content = path.read_bytes()
        first = len(content) - len(content[content.index(b"\x1f\x8b", 2) :])
        for end in [*range(len(content)), *Random(0).sample(range(first, len(content)), 3)]:
            path.write_bytes(content[:end])
            expected = {0: "first"} if end >= first else {}
            assert dict(store.read("r", KEYS)) == expected
            store.append("r", KEYS, {5: "next"})
            assert dict(store.read("r", KEYS)) == expected | {5: "next"}


def test_a_folder_has_the_answers_of_one_evaluation(tmp_path: Path) -> None:
    """Others are refused with what differs, unless they begin anew."""
    with AnswerStore(tmp_path, WORK) as store:
        store.append("r", KEYS, {0: 1})
    with pytest.raises(OptionError, match=r"another evaluation: n `8` there, `4` here\. .*`--restart`"):
        AnswerStore(tmp_path, WORK | {"n": "4"})
    with AnswerStore(tmp_path, WORK | {"n": "4"}, restart=True) as store:
        assert dict(store.read("r", KEYS)) == {}
    (tmp_path / "work.json").write_text("{")
    with pytest.raises(OptionError, match="cannot be read"):
        AnswerStore(tmp_path, WORK)


def test_beginning_anew_throws_away_nothing_else(tmp_path: Path) -> None:
    """A folder may have data of its user, of the same kind of file."""
    own = tmp_path / "train.jsonl.gz"
    own.write_bytes(gzip.compress(b'{"question": "a", "answer": "b"}\n'))
    (tmp_path / "broken.jsonl.gz").write_bytes(b"no gzip")
    with AnswerStore(tmp_path, WORK) as store:
        store.append("r", KEYS, {0: 1})
    with AnswerStore(tmp_path, WORK, restart=True):
        left = {path.name for path in tmp_path.glob("*.gz")}
    assert left == {"train.jsonl.gz", "broken.jsonl.gz"}


def test_answers_to_other_questions_are_refused(tmp_path: Path) -> None:
    """Those of more questions of the same file are not."""
    with AnswerStore(tmp_path, WORK) as store:
        store.append("r", KEYS, {0: 1, 9: 2})
        assert dict(store.read("r", KEYS[:4])) == {0: 1, 9: 2}
        with pytest.raises(OptionError, match="answers to other questions, or with other options: that of number 0"):
            dict(store.read("r", ["other", *KEYS[1:]]))


def test_two_processes_do_not_write_at_once(tmp_path: Path) -> None:
    """The second is told so at once."""
    with AnswerStore(tmp_path, WORK), pytest.raises(OptionError, match="Another process is evaluating"):
        AnswerStore(tmp_path, WORK)
    AnswerStore(tmp_path, WORK).__exit__(None, None, None)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """Before any answer."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="cannot be written"):
        AnswerStore(tmp_path / "file" / "e", WORK)
