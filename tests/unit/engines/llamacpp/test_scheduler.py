"""Sequences join and leave between forward passes, and each gets what it gets alone, whatever else goes on.

The context is a toy: the next token and the norms follow from all earlier tokens of the slot, so that a wrong prefix, a
position that is run twice or a lost token changes an answer.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch

from langnorm.abacus import path as abacus_path
from langnorm.engines.llamacpp.forward_pass import PassRunner
from langnorm.engines.llamacpp.library import PassTokens
from langnorm.engines.llamacpp.running import RunningSequence
from langnorm.engines.llamacpp.scheduler import Scheduler
from langnorm.engines.llamacpp.slots import Slots
from langnorm.engines.options import Sampling
from langnorm.engines.requests import Completion, Record, Request
from langnorm.engines.sample_group import SampleGroup
from langnorm.engines.sequence import PendingSequence
from langnorm.errors import MemoryLimitError
from langnorm.interventions.options import Suppression
from langnorm.interventions.plan import Plan, Plans
from langnorm.norms.thresholds import RunningThreshold
from tests.reference.interventions import Running

LAYERS = (0, 2)  # the last one, as in llama.cpp, has states of tokens with logits alone
VOCABULARY = 50
END = 7


def next_token(ids: Sequence[int]) -> int:
    """Returns the token that follows."""
    return random.Random(repr(list(ids))).randrange(VOCABULARY)


def norm_after(ids: Sequence[int], layer: int) -> float:
    """Returns the norm of the last of some tokens after a layer."""
    return random.Random(repr((list(ids), layer))).random()


class ToyObserver:
    """Says what norms a pass has, as `StateObserver` does."""

    def __init__(self) -> None:
        self.was_stopped = False
        self.norms: dict[int, torch.Tensor] = {}
        self.states: dict[int, torch.Tensor] = {}
        self.should_stop: Callable[[], bool] = lambda: False

    def begin(self, *given: Any) -> None:
        """Notes what is wanted of the next pass."""
        self.layers, self.should_stop, self.was_stopped = given[2], given[-1], False
        self.acted, self.act = given[4:6] if len(given) > 4 else ((), None)

    def end(self) -> None:
        """Nothing went wrong."""


class ToyContext:
    """Cells that slots share, as in llama.cpp."""

    bytes_per_token = 1

    def __init__(self, observer: ToyObserver, num_cells: int = 1000, most_tokens: int = 8) -> None:
        self.observer, self.num_cells, self.most_tokens = observer, num_cells, most_tokens
        self.slots: dict[int, list[tuple[int, int]]] = {}  # (cell, token) by position
        self.num_tokens_run = 0
        self.num_slots_of_passes: list[int] = []
        self.before_run: Callable[[], None] = lambda: None
        self.poisoned: int | None = None  # a token that makes a pass fail
        self._cells = count()

    def run(self, parts: Sequence[PassTokens]) -> bool:
        """Runs a pass over the cells."""
        self.before_run()
        assert 0 < sum(len(part.token_ids) for part in parts) <= self.most_tokens
        used = {cell for cells in self.slots.values() for cell, _ in cells}
        if len(used) + sum(len(part.token_ids) for part in parts) > self.num_cells:
            return False
        if any(self.poisoned in part.token_ids for part in parts):
            msg = "the pass failed"
            raise ValueError(msg)
        if self.observer.should_stop():
            self.observer.was_stopped = True
            return True
        self._logits: list[list[int]] = []
        norms: dict[int, list[float]] = {layer: [] for layer in LAYERS}
        for part in parts:
            cells = self.slots.setdefault(part.slot, [])
            assert len(cells) == part.first_position
            for offset, token in enumerate(part.token_ids):
                cells.append((next(self._cells), token))
                ids = [token for _, token in cells]
                self._logits.append(ids)
                has_logits = offset >= len(part.token_ids) - part.num_logits
                for layer in LAYERS:
                    norms[layer].append(norm_after(ids, layer) if has_logits or layer != LAYERS[-1] else 0.0)
            self.num_tokens_run += len(part.token_ids)
        self.num_slots_of_passes.append(len(parts))
        self.observer.norms = {layer: torch.tensor(values) for layer, values in norms.items()}
        for layer in sorted(self.observer.acted):  # on states of one number each, which here go nowhere
            self.observer.act(layer, self.observer.norms[layer][:, None])
        return True

    def logits(self, row: int) -> np.ndarray:
        """Returns logits whose largest is the token that follows."""
        scores = np.zeros(VOCABULARY, dtype=np.float32)
        scores[next_token(self._logits[row])] = 1.0
        return scores

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Lets a slot share cells of another one."""
        assert not self.slots.get(target)
        assert len(self.slots[source]) >= num_tokens
        self.slots[target] = self.slots[source][:num_tokens]

    def cut(self, slot: int, num_tokens: int) -> bool:
        """Frees cells of a slot."""
        del self.slots.setdefault(slot, [])[num_tokens:]
        return True

    def clear(self) -> None:
        """Frees all cells."""
        self.slots.clear()


class Toy:
    """A scheduler over a toy context."""

    def __init__(self, num_slots: int = 4, **kwargs: Any) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(abacus_path())
        observer = ToyObserver()
        self.context = ToyContext(observer, **kwargs)
        self.slots = Slots(num_slots, can_share=True)
        self.ended: list[RunningSequence] = []
        self.scheduler = Scheduler(
            self.context,  # type: ignore[arg-type]
            PassRunner(self.context, observer, 3),  # type: ignore[arg-type]
            self.slots,
            lambda pending: RunningSequence(pending, tokenizer, [END], pending.request.sampling.max_tokens or 10, 4, 3),
            self.ended.append,
            "toy",
        )

    def ask(self, *pending: PendingSequence) -> list[PendingSequence]:
        """Submits sequences, and returns them."""
        self.scheduler.submit(pending)
        return list(pending)

    def settle(self) -> None:
        """Waits for the end of the worker."""
        while self.scheduler._worker.is_running:
            time.sleep(0.001)


def sequence(ids: Sequence[int], max_tokens: int = 10, **fields: Any) -> PendingSequence:
    """Returns a sequence that waits, all of whose norms are recorded."""
    record = Record(layers=LAYERS, prompt=fields.pop("prompt", False))
    request = Request(tuple(ids), Sampling(max_tokens=max_tokens), record, **fields)
    return PendingSequence(request, 0, 0)


def check(pending: PendingSequence) -> Completion:
    """Compares a completion with a loop that knows nothing of slots; returns it."""
    completion = pending.future.result(timeout=20)
    request, ids = pending.request, list(pending.request.prompt_ids)
    answer: list[int] = []
    while len(answer) < (request.sampling.max_tokens or 10) and END not in answer:
        answer.append(next_token([*ids, *answer]))
    assert completion.token_ids == answer
    assert completion.finish_reason == ("stop" if answer[-1] == END else "length")
    ends = range(len(ids) + 1, len(ids) + len(answer))
    expected = [[norm_after([*ids, *answer][:end], layer) for layer in LAYERS] for end in ends]
    assert np.allclose(np.array(completion.norms).reshape(-1, 2), np.array(expected).reshape(-1, 2))
    if request.record and request.record.prompt:
        of_prompt = [[norm_after(ids[: end + 1], layer) for layer in LAYERS] for end in range(len(ids))]
        assert np.allclose(completion.prompt_norms, of_prompt)
    return completion


@pytest.mark.parametrize("seed", range(30))
def test_every_answer_is_the_lone_one(seed: int) -> None:
    """With common beginnings, little memory, few slots, prompts that are recorded, and sequences that are cancelled."""
    draw = random.Random(seed)
    toy = Toy(num_slots=draw.randint(1, 5), num_cells=draw.choice([40, 60, 1000]), most_tokens=draw.randint(5, 20))
    stems = [[draw.randrange(VOCABULARY) for _ in range(draw.randint(1, 12))] for _ in range(3)]
    pending = [
        sequence(
            draw.choice(stems) + [draw.randrange(3) for _ in range(draw.randint(0, 3))] + [1],
            draw.randint(1, 15),
            prompt=draw.random() < 0.2,
            max_batch_size=draw.choice([2, 16]),
        )
        for _ in range(25)
    ]
    cancelled = set()
    for number, one in enumerate(pending):
        toy.ask(one)
        if draw.random() < 0.1:
            one.cancel()
            cancelled.add(number)
        if draw.random() < 0.3:
            time.sleep(0.002)
    for number, one in enumerate(pending):
        if number not in cancelled:
            check(one)
    toy.settle()
    assert not toy.scheduler._running
    assert sum(len(cells) for cells in toy.context.slots.values()) == sum(
        len(slot.token_ids) for slot in toy.slots._idle.values()
    )


@pytest.mark.parametrize("seed", range(10))
def test_running_thresholds_are_those_of_the_answer_alone(seed: int) -> None:
    """Also of one that was put off for lack of memory and run again, in chunks, beside others that are acted on."""
    draw = random.Random(seed)
    toy = Toy(num_slots=4, num_cells=draw.choice([45, 1000]), most_tokens=draw.randint(5, 20))
    rule = RunningThreshold(k=draw.choice([0.0, 0.3]), warm_up=draw.randint(1, 4))
    plans = Plans(suppression=Plan(Suppression(threshold=rule), LAYERS, None))
    pending = [sequence([draw.randrange(VOCABULARY) for _ in range(9)], 25, plans=plans) for _ in range(12)]
    num_suppressed = 0
    for one in toy.ask(*pending):
        completion = check(one)
        running = Running(LAYERS, rule.k, rule.warm_up)
        counts = {str(layer): 0 for layer in LAYERS}
        for row in completion.norms:
            for layer, norm in zip(LAYERS, row, strict=True):
                counts[str(layer)] += norm > running.compare(layer, norm)
        report = completion.interventions["suppression"]
        assert report["suppressed"] == counts
        last = {str(layer): tau for layer, tau in running.last.items()}
        assert report["thresholds"] == (last if any(last.values()) else None)
        num_suppressed += sum(counts.values())
    assert num_suppressed > 20
    num_needed = sum(9 + len(one.future.result().token_ids) - 1 for one in pending)
    assert (toy.context.num_tokens_run > num_needed) == (toy.context.num_cells < 1000)  # some were run again


def test_short_sequences_leave_and_others_take_their_place() -> None:
    """Nobody waits for the longest."""
    toy = Toy(num_slots=2)
    pending = toy.ask(*(sequence([i, 1], max_tokens) for i, max_tokens in enumerate((1, 2, 15, 3, 4))))
    for one in pending:
        check(one)
    assert max(toy.context.num_slots_of_passes) == 2


def test_samples_share_the_pass_of_their_prompt() -> None:
    """The others begin with the prompt of the first."""
    toy = Toy()
    prompt = list(range(30, 50))
    for one in toy.ask(*(sequence(prompt, 1) for _ in range(4))):
        check(one)
    assert toy.context.num_tokens_run == len(prompt) + 3  # the last token of each of the others


def test_next_turn_runs_only_what_is_new() -> None:
    """What an earlier turn left in memory is found again, and said."""
    toy = Toy()
    first = check(toy.ask(sequence([1, 2, 3, 4], 5))[0])
    run_before = toy.context.num_tokens_run
    toy.settle()
    second = [1, 2, 3, 4, *first.token_ids, 9, 9]
    completion = check(toy.ask(sequence(second, 1))[0])
    assert toy.context.num_tokens_run - run_before == 3  # the last token of the first answer was never run
    assert completion.prefix_hit
    assert completion.prefix_hit.tokens == len(second) - 3


def test_what_ended_sequences_left_can_be_forgotten() -> None:
    """At once where nothing runs, and before the next sequence begins where something does."""
    toy = Toy()
    check(toy.ask(sequence([1, 2, 3, 4], 5))[0])
    toy.settle()
    toy.scheduler.forget_idle()
    assert not any(toy.context.slots.values())
    check(toy.ask(sequence([1, 2, 3, 4], 5))[0])
    first, second = sequence([8, 8], 15), sequence([1, 2, 3, 4, 5], 5)
    toy.ask(first)
    toy.scheduler.forget_idle()
    assert check(toy.ask(second)[0]).prefix_hit is None
    check(first)


def test_one_failure_is_not_the_end_of_the_others() -> None:
    """What failed together is run alone: only the culprit ends with the error, and the next one is answered."""
    toy = Toy()
    toy.context.poisoned = 49
    bad, *good = [sequence(ids, 5) for ids in ([49, 1], [2, 1], [3, 1])]
    toy.ask(bad, *good)
    with pytest.raises(ValueError, match="the pass failed"):
        bad.future.result(timeout=10)
    for one in good:
        if 49 not in [next_token([*one.request.prompt_ids])]:
            check(one)
    toy.context.poisoned = None
    check(toy.ask(sequence([49, 1], 5))[0])


def test_context_too_small_for_one_says_so() -> None:
    """The error names the option."""
    toy = Toy(num_cells=10)
    pending = toy.ask(sequence(range(30, 39), 10))[0]
    with pytest.raises(MemoryLimitError, match="`context_length` of `engine_kwargs`"):
        pending.future.result(timeout=10)


def test_cancelled_sequences_end_within_a_pass() -> None:
    """A pass for nobody is given up, and a waiting sequence never begins."""
    toy = Toy(most_tokens=5)
    begun, go = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert go.wait(10)

    toy.context.before_run = wait
    running, waiting = toy.ask(sequence(range(20, 40), 10, max_batch_size=1), sequence([1], 10))
    assert begun.wait(10)
    running.cancel()
    waiting.cancel()
    go.set()
    assert running.future.result(timeout=10).token_ids == []
    with pytest.raises(CancelledError):
        waiting.future.result(timeout=10)
    assert toy.context.num_tokens_run == 0  # the pass was given up


def test_task_that_was_cancelled_takes_no_place() -> None:
    """A future that was cancelled is not run."""
    toy = Toy()
    pending = sequence([1], 10)
    assert pending.future.cancel()
    other = sequence([2], 10)
    toy.ask(pending, other)
    check(other)
    assert len(toy.ended) == 1


def test_pruner_stops_samples() -> None:
    """It sees all samples at the same length."""

    class Last:
        every = 3

        def stopped(self, samples: Sequence[Any]) -> list[int]:
            assert all(len(sample.token_ids) == 3 for sample in samples if sample.is_running)
            return [len(samples) - 1]

    toy, pruner = Toy(), Last()
    group = SampleGroup(pruner)
    request = Request((1, 2, 5), Sampling(max_tokens=4, n=3), Record(layers=LAYERS), pruner=pruner)
    samples = [PendingSequence(request, sample, 0, sample_group=group) for sample in range(3)]
    completions = [one.future.result(timeout=10) for one in toy.ask(*samples)]
    assert [completion.finish_reason for completion in completions] == ["length", "length", "pruned"]
    assert len(completions[2].token_ids) == 3


def test_streams_get_each_token_as_it_comes() -> None:
    """What is sent is the text of the completion."""
    toy, deltas = Toy(), []
    request = Request((1, 2), Sampling(max_tokens=6), Record(layers=LAYERS))
    pending = toy.ask(PendingSequence(request, 0, 0, sink=deltas.append))[0]
    completion = check(pending)
    assert "".join(piece for delta in deltas for _, piece in delta.pieces) == "".join(completion.pieces)
    assert deltas[-1].completion == completion


def test_reader_that_fails_ends_its_own_sequence() -> None:
    """Others never notice."""

    def fail(_delta: Any) -> None:
        msg = "no reader"
        raise RuntimeError(msg)

    toy, request = Toy(), Request((1, 2), Sampling(max_tokens=6))
    broken, other = PendingSequence(request, 0, 0, sink=fail), sequence([1, 3], 6)
    toy.ask(broken, other)
    with pytest.raises(RuntimeError, match="no reader"):
        broken.future.result(timeout=10)
    check(other)


def test_nothing_is_taken_at_exit_or_in_a_fork() -> None:
    """The errors say why."""
    toy = Toy()
    toy.scheduler.close()
    with pytest.raises(RuntimeError, match="exiting"):
        toy.ask(sequence([1]))
    toy = Toy()
    toy.scheduler.reset()
    with pytest.raises(RuntimeError, match="spawn"):
        toy.ask(sequence([1]))
    assert toy.scheduler.num_waiting == 0
    toy.scheduler.join()
