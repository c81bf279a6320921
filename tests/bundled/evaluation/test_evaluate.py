"""Evaluations of Abacus: right figures, nothing asked twice, and whatever stops one, the next call goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner

from langnorm import ChatLangNorm, Selection
from langnorm.cli import app, loading
from langnorm.errors import OptionError
from langnorm.evaluation import Item, Method, Report, Task, evaluate, load_task
from langnorm.evaluation.store import AnswerStore
from langnorm.selection import rank

METHODS = ("selection", "majority", "adaptive", "random", "oracle", "recursion", "selection:mean")
NUM_KILLS = int(os.environ.get("LANGNORM_TEST_KILLS", "1"))


@pytest.fixture(scope="module")
def task() -> Task:
    """Return some easy and some hard questions."""
    hard = load_task("abacus", num_problems=3)
    easy = tuple(Item(f"What is {a} + {a}?", str(2 * a)) for a in (4, 21, 305))
    return replace(hard, name="few", items=(*easy, *hard.items))


@pytest.fixture(scope="module")
def chat(abacus_engine: Any) -> ChatLangNorm:
    """Return Abacus, sampling short answers."""
    return ChatLangNorm(engine=abacus_engine, temperature=0.7, max_tokens=60, max_batch_size=8)


def run(chat: ChatLangNorm, task: Task, folder: Path, **options: Any) -> Report:
    """Return the report of a small evaluation."""
    return evaluate(chat, task, **({"methods": METHODS, "n": 4, "folder": folder, "show_progress": False} | options))


@pytest.fixture(scope="module")
def whole(chat: ChatLangNorm, task: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """Return the folder and the report of an evaluation that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(chat, task, folder)


def without_seconds(report: Report) -> Report:
    """Return what does not depend on the clock."""
    return replace(report, methods=tuple(replace(method, seconds=0.0) for method in report.methods))


def answers_of(folder: Path, task: Task, name: str) -> list[list[Any]]:
    """Return the messages of a run, read without the store."""
    import gzip

    from langchain_core.messages import messages_from_dict

    rows = [json.loads(line) for line in gzip.decompress((folder / f"{name}.jsonl.gz").read_bytes()).splitlines()]
    assert [row["item"] for row in rows] == list(range(len(task.items)))
    return [messages_from_dict(row["answers"]["messages"]) for row in rows]


def test_figures_are_those_of_the_answers(whole: tuple[Path, Report], task: Task) -> None:
    """Counted from what was stored, with the library's own ranking of messages."""
    folder, report = whole
    right = [
        [task.read(message.text) == item.answer for message in messages]
        for item, messages in zip(task.items, answers_of(folder, task, "samples"), strict=True)
    ]
    plain = answers_of(folder, task, "baseline")
    assert {len(messages) for messages in plain} == {1}
    num_items = len(task.items)
    own = [task.read(of_one[0].text) == item.answer for item, of_one in zip(task.items, plain, strict=True)]
    assert report["baseline"].accuracy.mean == pytest.approx(sum(own) / num_items)
    assert report["oracle"].accuracy.mean == pytest.approx(sum(map(any, right)) / num_items)
    assert report["random"].accuracy.mean == pytest.approx(sum(map(sum, right)) / 4 / num_items)
    for name, options in (("selection", {}), ("majority", {"vote": "majority"}), ("selection:mean", {"score": "mean"})):
        best = [rank(messages, Selection(n=4, **options))[0] for messages in answers_of(folder, task, "samples")]
        of_best = [task.read(message.text) == item.answer for item, message in zip(task.items, best, strict=True)]
        assert report[name].accuracy.mean == pytest.approx(sum(of_best) / num_items)
    tokens = [sum(m.usage_metadata["output_tokens"] for m in of_one) for of_one in answers_of(folder, task, "samples")]
    assert report["majority"].tokens == pytest.approx(sum(tokens) / num_items)
    assert report["adaptive"].tokens <= report["majority"].tokens
    assert 0 < report["baseline"].share_cut < 1
    assert report["baseline"].difference is None
    assert report["random"].p_value is None
    assert report["oracle"].p_value is not None


def test_a_report_is_written_in_three_forms(whole: tuple[Path, Report]) -> None:
    """As text, as data, and where matplotlib is there, as a picture."""
    folder, report = whole
    text = (folder / "report.md").read_text()
    assert text == report.to_markdown()
    assert text.count("\n| ") == 2 + len(METHODS)
    stored = json.loads((folder / "report.json").read_text())
    assert [method["name"] for method in stored["methods"]] == ["baseline", *METHODS]


def test_nothing_is_asked_twice(
    whole: tuple[Path, Report], chat: ChatLangNorm, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same report again, and other selections, are computed from what is there."""
    folder, report = whole
    monkeypatch.setattr(ChatLangNorm, "generate", None)
    assert run(chat, task, folder) == report
    more = run(chat, task, folder, methods=["selection:shorter"])
    assert [method.name for method in more.methods] == ["baseline", "selection:shorter"]


def test_more_questions_are_added_to_those_that_are_there(
    whole: tuple[Path, Report], chat: ChatLangNorm, task: Task, tmp_path: Path
) -> None:
    """And come to the same where groups of questions were whole."""
    fewer = run(chat, task, tmp_path, num_problems=2)
    assert fewer.num_problems == 2
    assert run(chat, task, tmp_path).num_problems == whole[1].num_problems


def test_whatever_stops_it_and_where_the_next_call_goes_on(
    whole: tuple[Path, Report], chat: ChatLangNorm, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten random moments, in the middle of a write among them: the report is that of an undisturbed run."""
    rng, real = Random(3), AnswerStore.append

    def append_or_stop(self: AnswerStore, name: str, *args: Any) -> None:
        path = tmp_path / f"{name}.jsonl.gz"
        before = path.stat().st_size if path.exists() else 0
        real(self, name, *args)
        if rng.random() < 0.7:
            os.truncate(path, rng.randint(before, path.stat().st_size))
            raise KeyboardInterrupt

    num_stops = 0
    while num_stops < 10:
        with monkeypatch.context() as patch:
            patch.setattr(AnswerStore, "append", append_or_stop)
            try:
                run(chat, task, tmp_path)
                break
            except KeyboardInterrupt:
                num_stops += 1
    assert num_stops > 3
    assert without_seconds(run(chat, task, tmp_path)) == without_seconds(whole[1])


def test_a_question_that_cannot_be_answered_is_reported(chat: ChatLangNorm, tmp_path: Path) -> None:
    """It counts as wrong, and the others are answered all the same."""
    task = Task("t", (Item("What is 3 + 4?", "7"), Item("very " * 3000 + "long", "8")), answer="number")
    report = run(chat, task, tmp_path, methods=[])
    assert report.methods[0].num_errors == 1
    assert "1 questions have no answer and count as wrong. The first: " in report.to_markdown()


def test_what_cannot_work_is_refused_before_any_answer(
    chat: ChatLangNorm, task: Task, whole: tuple[Path, Report], tmp_path: Path
) -> None:
    """With what to do."""
    greedy = chat.model_copy(update={"temperature": 0})
    with pytest.raises(OptionError, match="Samples of a greedy model are all the same. Give it a temperature"):
        run(greedy, task, tmp_path)
    with pytest.raises(OptionError, match=r"no method `selction`\. .*Did you mean `selection`"):
        run(chat, task, tmp_path, methods=["selction"])
    with pytest.raises(OptionError, match="given twice"):
        run(chat, task, tmp_path, methods=["oracle", "oracle"])
    with pytest.raises(OptionError, match="another evaluation: temperature"):
        run(chat.model_copy(update={"temperature": 0.9}), task, whole[0])
    for score, said in (("coe_r", "hidden states"), ("update_cosine", "hidden states"), ("settling", "`lens=True`")):
        with pytest.raises(OptionError, match=rf"The score of the method `selection:{score}` reads .*{said}"):
            run(chat, task, tmp_path, methods=[f"selection:{score}"])
    for name, value in (("layers", [3]), ("threshold", "quantile"), ("step_splitter", "line"), ("norm_profile", None)):
        with pytest.raises(OptionError, match=f"another evaluation: {name.replace('_', ' ')} "):
            run(chat.model_copy(update={name: value}), task, whole[0])
    for broken, said in (
        (Method("a", "", "../a"), "no name of a file"),
        (Method("a", "", "baseline", {"steering": {}}), "other options than its run `baseline`"),
        (Method("a", "", "samples", {"steering": {}}, pick="random"), "other options than its run `samples`"),
        (Method("a", "", "a", {"n": 3}), "asks for several answers"),
        (Method("a", "", "samples", pick=Selection(n=5)), "chooses from 5 samples, and `n=4` are drawn"),
        (Method("a", "", "samples"), "Give a `pick` to those of the run `samples` alone"),
        (Method("a", "", "a", pick="oracle"), "Give a `pick` to those of the run `samples` alone"),
        (Method("baseline", "mine", "mine", {"steering": {}}), "`baseline` is given twice"),
    ):
        with pytest.raises(OptionError, match=said):
            run(chat, task, tmp_path, methods=[broken])
    impossible = Method("far", "no such layer", "far", {"recursion": {"layers": [99]}})
    with pytest.raises(OptionError, match="99"):
        run(chat, task, tmp_path / "far", methods=[impossible])
    assert not (tmp_path / "far").exists(), "before the baseline, which may take hours"
    with pytest.raises(OptionError, match="99"):
        run(chat, task, whole[0], methods=[impossible], restart=True)
    assert (whole[0] / "baseline.jsonl.gz").exists(), "what is there is thrown away by what can be run alone"
    own = Method("recursion", "mine", "recursion", {"recursion": {"max_extra": 3}})
    with pytest.raises(OptionError, match="with other options"):
        run(chat, task, whole[0], methods=[own])
    assert not list(tmp_path.glob("*.gz"))


def test_a_method_that_samples_of_a_greedy_model_has_its_seed(chat: ChatLangNorm, task: Task, tmp_path: Path) -> None:
    """That of the evaluation, from which all answers follow."""
    greedy, hot = chat.model_copy(update={"temperature": 0}), Method("hot", "", "hot", {"temperature": 1.5})
    texts = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(greedy, task, tmp_path / name, methods=[hot], seed=seed)
        texts.append([str(of_one[0].additional_kwargs) for of_one in answers_of(tmp_path / name, task, "hot")])
    assert texts[0] == texts[1] != texts[2]


def test_each_question_draws_for_itself(chat: ChatLangNorm, tmp_path: Path) -> None:
    """The same one, asked twice in one batch, gets different answers: intervals take questions for independent."""
    item = Item("Mia has 12 boxes with 14 pens each. How many pens does she have?", "168")
    twice = Task("twice", (item, item), "{question}", "number")
    run(chat.model_copy(update={"temperature": 2.0}), twice, tmp_path, methods=["oracle"], n=2)
    one, other = ([str(message) for message in of_one] for of_one in answers_of(tmp_path, twice, "samples"))
    assert not {*one} & {*other}


def test_a_baseline_is_one_answer(chat: ChatLangNorm, task: Task, tmp_path: Path) -> None:
    """Also of a chat model that gives several, or the best of several."""
    for name, fields in (("n", {"n": 3}), ("selection", {"selection": Selection(n=3)})):
        run(chat.model_copy(update=fields), task, tmp_path / name, methods=[])
        assert [len(of_one) for of_one in answers_of(tmp_path / name, task, "baseline")] == [1] * len(task.items)


def test_a_score_reads_what_the_chat_model_keeps(chat: ChatLangNorm, task: Task, tmp_path: Path) -> None:
    """How late tokens settled, where it keeps that."""
    options: dict[str, Any] = {"methods": ["selection:settling"], "num_problems": 1, "n": 2}
    report = run(chat.model_copy(update={"lens": True}), task, tmp_path, **options)
    assert report["selection:settling"].num_errors == 0


def test_methods_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, and one's own with call options."""
    monkeypatch.setenv("COLUMNS", "200")
    arguments = ["eval", "--num-problems", "2", "--temperature", "0", "--max-tokens", "20", "--methods", "steering"]
    own = 'short={"max_tokens": 7, "steering": {"beta": 0.1}}'
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "own"), "--own", own])
    assert done.exit_code == 0, done.output
    methods = json.loads((tmp_path / "own" / "report.json").read_text(encoding="utf-8"))["methods"]
    assert [(each["name"], each["tokens"]) for each in methods] == [("baseline", 20), ("steering", 20), ("short", 7)]
    assert methods[2]["description"] == 'max_tokens=7, steering={"beta": 0.1}'
    for broken, said in (
        ("short", "`short` is not NAME=OPTIONS. Write for example `strong="),
        ('={"max_tokens": 7}', "is not NAME=OPTIONS"),
        ("short=7", "is not NAME=OPTIONS"),
        ('steering={"max_tokens": 7}', "`steering` is given twice"),
        ('short={"max_token": 7}', "max_token"),
        ('baseline={"max_tokens": 7}', "`baseline` is given twice"),
        ("samples={}", "has the name of the samples"),
        ('few={"n": 3}', "asks for several answers"),
    ):
        done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "broken"), "--own", broken])
        assert done.exit_code != 0
        assert said in done.output
        assert not (tmp_path / "broken").exists()


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("Qwen/Qwen2.5-7B", "eval-abacus-Qwen2.5-7B"),
        ("models/some.gguf", "eval-abacus-some"),
        ("m/v1.5/", "eval-abacus-v1.5"),
        (".", "eval-abacus-here.1"),
    ],
)
def test_each_model_has_a_folder_of_its_own(
    chat: ChatLangNorm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, folder: str
) -> None:
    """Unless the command line names one: names of models have dots."""
    (tmp_path / "here.1").mkdir()
    monkeypatch.chdir(tmp_path / "here.1")
    monkeypatch.setattr(loading, "load_chat", lambda **_: chat)
    arguments = ["eval", "--num-problems", "1", "--methods", "baseline", "--max-tokens", "5", "--model", model]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert [path.name for path in (tmp_path / "here.1").iterdir()] == [folder]


def test_a_process_that_is_killed_loses_nothing(chat: ChatLangNorm, tmp_path: Path) -> None:
    """By the command line, without any chance to tidy up; the same command then goes on, here in this process."""
    rng = Random(1)
    arguments = ["eval", "--num-problems", "4", "-n", "2", "--methods", "majority,oracle", "--max-tokens", "40"]
    arguments += ["--batch-size", "2", "--out", str(tmp_path / "killed")]
    alike = chat.model_copy(update={"max_tokens": 40, "max_batch_size": 2})
    options = {"methods": ["majority", "oracle"], "n": 2, "num_problems": 4}
    run(alike, load_task("abacus", num_problems=4), tmp_path / "whole", **options)
    for _ in range(NUM_KILLS):
        command = [sys.executable, "-m", "langnorm", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list(tmp_path.glob("killed/*.gz")):
            time.sleep(0.02)
        time.sleep(rng.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    reports = [json.loads((tmp_path / folder / "report.json").read_text()) for folder in ("whole", "killed")]
    for report in reports:
        for method in report["methods"]:
            del method["seconds"]
    assert reports[0] == reports[1]
