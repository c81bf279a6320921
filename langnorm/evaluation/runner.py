"""Answers the questions of a task in several ways, and compares the ways."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, HumanMessage, messages_from_dict, messages_to_dict
from langchain_core.runnables.config import ContextThreadPoolExecutor

from langnorm.chat.batches import batch_of_calls
from langnorm.checks import check_integer
from langnorm.engines.base import has_ability
from langnorm.errors import OptionError, PromptError
from langnorm.evaluation.methods import SAMPLES, Method, check_scores, drawn_ranking, resolve_methods
from langnorm.evaluation.report import Report, Scored, build_report
from langnorm.evaluation.store import AnswerStore
from langnorm.evaluation.tasks import Item, Task, load_task
from langnorm.norms.layers import select_layers
from langnorm.norms.profile import NormProfile
from langnorm.norms.thresholds import readable_rule, threshold_rule_to_dict
from langnorm.selection.options import Selection
from langnorm.selection.selector import candidates_of
from langnorm.work import digest_of, in_words

if TYPE_CHECKING:
    from langnorm.chat_models import ChatLangNorm

DEFAULT_METHODS = ("baseline", "selection", "majority", "adaptive", "random", "oracle")


def evaluate(
    chat: ChatLangNorm,
    task: Task | str | Path,
    methods: Sequence[str | Method] = DEFAULT_METHODS,
    *,
    folder: str | Path,
    n: int = 8,
    seed: int = 0,
    num_problems: int | None = None,
    restart: bool = False,
    show_progress: bool = True,
) -> Report:
    """Return how often each way to answer a task is right, beside one plain answer.

    Every answer is on disk as soon as it is there: a call that was stopped goes on where it was when it is made again,
    and repeats nothing. Samples are drawn once, and all selections are computed from them, also those that a later call
    asks for. With the same seed all methods that give one answer draw from the same random numbers.

    Args:
        chat: The model, with its settings. Selections need a temperature above 0.
        task: A task, the path of a file of JSON lines with `question` and `answer`, or `"abacus"`.
        methods: Names of `known_methods`, `"selection:SCORE"`, or methods of your own. The baseline is always there.
        folder: Where answers and report are kept; it is made if it is not there.
        n: Samples that selections choose from.
        seed: From which the answers follow.
        num_problems: How many of the first questions are asked; by default all, and 200 of Abacus.
        restart: Whether answers that are there are thrown away.
        show_progress: Whether to show a progress bar.

    Raises:
        OptionError: The task cannot be read, a method or an option is not allowed or not possible with this model,
            samples would all be the same, or the folder has answers of another evaluation.
    """
    check_integer("n", n, low=2, allowed="2 or above")
    check_integer("seed", seed, low=0, allowed="0 or above")
    if num_problems is not None:
        check_integer("num_problems", num_problems, low=1, allowed="1 or above, or None for all")
    asked = task if isinstance(task, Task) else load_task(task, num_problems=num_problems)
    items = asked.items[:num_problems]
    chosen = resolve_methods(methods, n)
    check_scores(chosen, has_lens=bool(chat.lens))
    runs = {method.run: method for method in chosen}
    if SAMPLES in runs and not chat.is_sampling():
        msg = "Samples of a greedy model are all the same. Give it a temperature, such as 0.7, or only other methods."
        raise OptionError(msg)
    runners = {run: _Runner(chat, asked, method, n=n, seed=seed) for run, method in runs.items()}
    for runner in runners.values():
        runner.check()
    with AnswerStore(Path(folder), _work(chat, asked, n=n, seed=seed), restart=restart) as store:
        scores = _Scores(chosen, asked, len(items))
        for run, runner in runners.items():
            for number, answers in store.read(run, runner.keys):
                scores.add(run, number, answers)
        with _progress(scores.num_answered, len(items) * len(runs), is_shown=show_progress) as advance:
            for run, runner in runners.items():
                for group in runner.groups(len(items), scores.answered(run)):
                    found = runner.answer(group)
                    store.append(run, runner.keys, found)
                    for number, answers in found.items():
                        scores.add(run, number, answers)
                    advance(len(found), run)
        report = build_report(asked.name, chat.model, n, scores.by_method())
        report.save(Path(folder))
    return report


def _work(chat: ChatLangNorm, task: Task, *, n: int, seed: int) -> dict[str, str]:
    """Return what decides the answers and what is known of them, in words."""
    engine = chat.loaded_engine()
    settings = chat.deciding_settings() | {"engine": engine.kind, "batch_size": chat.max_batch_size}
    # What messages say of norms, which selections choose by.
    layers, splitter, profile = select_layers(chat.layers, engine.num_layers), chat.step_splitter, chat.norm_profile
    settings |= {
        "layers": list(layers),
        "threshold": threshold_rule_to_dict(readable_rule(chat.threshold)),
        "norm_profile": digest_of([profile.to_dict()]) if isinstance(profile, NormProfile) else str(profile),
        "step_splitter": splitter if isinstance(splitter, str) else getattr(splitter, "__name__", "one's own"),
        "lens": chat.lens,
    }
    return in_words({"answers_read_as": task.form, "n": n, "seed": seed, **settings, **asdict(engine.identity)})


@contextmanager
def _progress(num_there: int, total: int, *, is_shown: bool) -> Iterator[Any]:
    from tqdm import tqdm

    with tqdm(total=total, initial=num_there, unit=" questions", disable=not is_shown) as bar:

        def advance(number: int, run: str) -> None:
            bar.set_postfix_str(run)
            bar.update(number)

        yield advance


class _Scores:
    """What the methods make of answers: these themselves, a gigabyte for a large task, are on disk alone."""

    def __init__(self, methods: Sequence[Method], task: Task, num_items: int) -> None:
        self._methods, self._task, self._num_items = methods, task, num_items
        self._scored: dict[str, dict[int, Scored]] = {method.name: {} for method in methods}

    def add(self, run: str, number: int, answers: Any) -> None:
        """Score the answers of a run to a question, unless it is none of those that are asked."""
        if number < self._num_items:
            for method in self._methods:
                if method.run == run:
                    self._scored[method.name][number] = _scored(method, self._task, self._task.items[number], answers)

    def answered(self, run: str) -> Collection[int]:
        """Return the numbers of the questions that a run has answers to."""
        return self._scored[next(method.name for method in self._methods if method.run == run)]

    @property
    def num_answered(self) -> int:
        """How many questions are answered, of all runs together."""
        return sum(len(self.answered(run)) for run in {method.run for method in self._methods})

    def by_method(self) -> dict[str, tuple[str, list[Scored]]]:
        """Return the description of each method, and its scores in the order of the questions."""
        return {
            method.name: (method.description, [self._scored[method.name][i] for i in range(self._num_items)])
            for method in self._methods
        }


class _Runner:
    """Answers the questions of one run, some at a time.

    What is answered together follows from the numbers of the questions alone, and so do their seeds: a run that was
    stopped gives the answers that it would have given.
    """

    def __init__(self, chat: ChatLangNorm, task: Task, method: Method, *, n: int, seed: int) -> None:
        self._task = task
        is_sampled = method.run == SAMPLES
        self._size = max(1, chat.max_batch_size // (n if is_sampled else 1))
        self._chat = chat.model_copy(update={"selection": None, "n": 1})
        self._seed = seed
        keeps_distribution = has_ability(chat.loaded_engine(), "distribution")
        of_samples = {"n": n, "norms": "tokens", "logprobs": True, "distribution": keeps_distribution}
        self._options = of_samples if is_sampled else dict(method.options)
        options = repr(sorted(self._options.items()))
        self.keys = [digest_of([task.prompt(item), item.answer, options]) for item in task.items]

    def check(self) -> None:
        """Raise `OptionError` unless the model can be asked with these options: before any other run takes hours."""
        prompt = [HumanMessage(self._task.prompt(self._task.items[0]))]
        with suppress(PromptError):  # which is that question's fault
            call = self._chat.prepare(prompt, **self._options)
            call.engine.check(call.request)

    def groups(self, num_items: int, done: Collection[int]) -> Iterator[list[int]]:
        """Yield the numbers of questions that are asked together, those aside that are answered."""
        for start in range(0, num_items, self._size):
            group = range(start, min(start + self._size, num_items))
            if missing := [number for number in group if number not in done]:
                yield missing

    def answer(self, group: Sequence[int]) -> dict[int, Any]:
        """Return the answers to some questions, in plain JSON types, by number.

        A question that the model cannot be asked, such as one that is too long, has none; any other error is raised,
        since it is not the question's.
        """
        start = time.perf_counter()
        try:
            messages = self._ask(group)
        except PromptError as error:
            if len(group) == 1:
                return {group[0]: {"error": str(error), "messages": [], "seconds": 0.0}}
            return {number: of_one for i in group for number, of_one in self.answer([i]).items()}
        seconds = (time.perf_counter() - start) / len(group)
        return {
            number: {"error": None, "messages": messages_to_dict(of_one), "seconds": seconds}
            for number, of_one in zip(group, messages, strict=True)
        }

    def _ask(self, group: Sequence[int]) -> list[list[AIMessage]]:
        with batch_of_calls(self._chat, len(group)), ContextThreadPoolExecutor(self._chat.max_batch_size) as executor:
            futures = [executor.submit(self._ask_one, number) for number in group]
            try:
                return [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()

    def _ask_one(self, number: int) -> list[AIMessage]:
        """Return the answers to a question, from a seed of its own: from one seed, several would draw alike."""
        drawn = hashlib.blake2b(f"{self._seed}/{number}".encode(), digest_size=4).digest()
        # Also of a greedy model, which some methods may have sample.
        options: dict[str, Any] = {"seed": int.from_bytes(drawn, "big") >> 1, **self._options}
        prompt = HumanMessage(self._task.prompt(self._task.items[number]))
        (generations,) = self._chat.generate([[prompt]], **options).generations
        return [generation.message for generation in generations]  # type: ignore[union-attr,misc]


def _scored(method: Method, task: Task, item: Item, stored: Any) -> Scored:
    """Return what a method makes of the answers to a question."""
    messages: Any = messages_from_dict(stored["messages"])
    if not messages:
        return Scored(right=0.0, is_cut=False, tokens=0.0, seconds=0.0, error=stored["error"])
    right = [task.read(message.text) == item.answer for message in messages]
    are_cut = [message.response_metadata.get("finish_reason") == "length" for message in messages]
    tokens = [message.usage_metadata["output_tokens"] for message in messages]
    seconds = stored["seconds"]
    if isinstance(method.pick, Selection):
        ranking = drawn_ranking(method.pick, candidates_of(messages, method.pick))
        drawn = len(ranking.candidates)
        best, share = ranking.best, sum(tokens[:drawn]) / sum(tokens)
        return Scored(float(right[best]), are_cut[best], float(sum(tokens[:drawn])), seconds * share)
    if method.pick == "oracle":
        return Scored(float(any(right)), all(are_cut), float(sum(tokens)), seconds)
    share = 1 / len(messages)  # of a random one, or of the only one
    return Scored(fmean(right), fmean(are_cut), fmean(tokens), seconds * share, is_expected=method.pick == "random")
