"""Sampling draws from the distribution that the settings describe, and a sequence depends on its own seed only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from langnorm.engines.options import Sampling
from langnorm.engines.token_choice.token_sampler import TokenSampler, build_warpers

if TYPE_CHECKING:
    from transformers import LogitsProcessorList

VOCABULARY = 40

SETTINGS = (
    {"temperature": 0.3},
    {"temperature": 1.0},
    {"temperature": 2.5},
    {"temperature": 1.0, "top_k": 6},
    {"temperature": 0.7, "top_p": 0.8},
    {"temperature": 1.5, "min_p": 0.2},
    {"temperature": 1.2, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
)


def random_logits(num_rows: int = 1, vocabulary: int = VOCABULARY, seed: int = 0) -> torch.Tensor:
    """Returns logits (B, V) that differ by a few units."""
    return 2.0 * torch.randn(num_rows, vocabulary, generator=torch.Generator().manual_seed(seed))


def sampler_of(samplings: list[Sampling], prompt_length: int = 1) -> TokenSampler:
    """Returns a sampler of sequences with the seeds 0, 1, 2, ..."""
    return TokenSampler(
        samplings, [(sequence, 0) for sequence in range(len(samplings))], [prompt_length] * len(samplings)
    )


def draw(sampler: TokenSampler, logits: torch.Tensor, num_steps: int = 1) -> torch.Tensor:
    """Returns the tokens (B, num_steps) that greedy decoding takes after the sampler."""
    ids = torch.zeros(logits.size(0), 1, dtype=torch.long)
    return torch.stack([sampler(ids, logits.clone()).argmax(dim=-1) for _ in range(num_steps)], dim=1)


def warpers_of(options: dict[str, float]) -> LogitsProcessorList:
    """Returns what warps the scores of a sequence with these options."""
    sampling = Sampling(**options)
    return build_warpers(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)


def assert_drawn_from(probabilities: torch.Tensor, tokens: torch.Tensor) -> None:
    """Checks draws by a chi-square statistic that a right sampler exceeds once in a million seeds."""
    counts = torch.bincount(tokens.flatten(), minlength=probabilities.numel()).double()
    assert counts[probabilities == 0].sum() == 0
    expected = probabilities.double() * counts.sum()
    # Rare tokens are counted together: the statistic wants at least five of each.
    is_rare = expected < 5
    counts = torch.cat([counts[~is_rare], counts[is_rare].sum(0, keepdim=True)])
    expected = torch.cat([expected[~is_rare], expected[is_rare].sum(0, keepdim=True)])
    statistic = ((counts - expected).square() / expected.clamp(min=1)).sum()
    degrees = counts.numel() - 1
    assert statistic < degrees + 7 * (2 * max(1, degrees)) ** 0.5


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_rows_draw_from_warped_distribution(options) -> None:
    """Over many sequences and steps, tokens have the frequencies of the warped softmax, and others never occur."""
    logits = random_logits(seed=5)
    sampler = sampler_of([Sampling(**options)] * 100)

    tokens = draw(sampler, logits.expand(100, -1), num_steps=200)

    assert_drawn_from(warpers_of(options)(None, logits).softmax(-1)[0], tokens)


def test_rare_tokens_are_drawn_as_often_as_they_should() -> None:
    """A half of the probability that very many tokens share is drawn like the half that few share."""
    likely, rare = torch.full((1, 200), 0.5 / 200).log(), torch.full((1, 8000), 0.5 / 8000).log()
    sampler = sampler_of([Sampling(temperature=1.0)] * 10)

    tokens = draw(sampler, torch.cat([likely, rare], dim=1).expand(10, -1), num_steps=200)

    assert_drawn_from(torch.full((20,), 0.05), tokens[tokens < 200] // 10)
    assert_drawn_from(torch.full((20,), 0.05), (tokens[tokens >= 200] - 200) // 400)
    assert abs((tokens < 200).float().mean() - 0.5) < 0.05


def test_impossible_tokens_are_never_drawn() -> None:
    """A token that something else has ruled out stays out, also when only one is left."""
    logits = torch.full((3, VOCABULARY), -torch.inf)
    logits[0, 7] = logits[1, 0] = logits[1, 39] = 0.0
    logits[2, 5:9] = torch.tensor([-100.0, 0.0, -200.0, 0.0])
    sampler = sampler_of([Sampling(temperature=1.5)] * 3)

    tokens = draw(sampler, logits, num_steps=2000)

    assert set(tokens[0].tolist()) == {7}
    assert set(tokens[1].tolist()) == {0, 39}
    assert set(tokens[2].tolist()) == {6, 8}


def test_rows_and_steps_are_independent() -> None:
    """Neighbouring seeds, samples and steps have nothing in common."""
    fair = [Sampling(temperature=1.0)] * 200
    seeds = [(sequence // 2, sequence % 2) for sequence in range(200)]
    coins = draw(TokenSampler(fair, seeds, [1] * 200), torch.zeros(200, 2), num_steps=200).float()

    assert abs(coins.mean() - 0.5) < 0.02
    pairs = [(coins[:, 1:], coins[:, :-1]), (coins[1::2], coins[::2]), (coins[2:], coins[:-2])]
    for one, other in pairs:
        assert abs(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]) < 0.03


def test_long_answers_do_not_repeat_random_numbers() -> None:
    """A sequence goes on drawing new numbers for as long as an answer may be."""
    (tokens,) = draw(sampler_of([Sampling(temperature=1.0)]), torch.zeros(1, 1000), num_steps=1100)

    assert len(set(tokens[:550].tolist()) ^ set(tokens[550:].tolist())) > 200
    for lag in (1, 64, 128, 256, 512):
        assert (tokens[lag:] == tokens[:-lag]).float().mean() < 0.02


@pytest.mark.parametrize("vocabulary", [1024, 50_000])
def test_memory_of_noise_is_that_of_a_few_steps(vocabulary) -> None:
    """Noise is drawn for few steps ahead, for as many in any batch, and a sequence's is its own."""
    logits = random_logits(32, vocabulary, seed=6)
    fair = [Sampling(temperature=1.0)] * 32
    sampler, alone = sampler_of(fair), sampler_of(fair[:1])

    tokens = draw(sampler, logits, num_steps=9)

    assert sum(noise.numel() for noise in sampler._noise._ahead) <= 4 * logits.numel()
    assert torch.equal(tokens[:1], draw(alone, logits[:1], num_steps=9))
    assert len(sampler._noise._ahead) == len(alone._noise._ahead)


@settings(max_examples=40)
@given(
    num_rows=st.integers(1, 5),
    sequences=st.lists(st.sampled_from((*SETTINGS, {"temperature": 0.0})), min_size=5, max_size=5),
    order=st.permutations(range(5)),
)
def test_row_depends_on_itself_only(num_rows, sequences, order) -> None:
    """A sequence draws the same tokens whatever its place and company."""
    samplings = [Sampling(**sequences[sequence]) for sequence in range(5)]
    logits = random_logits(5, seed=7)
    chosen = order[:num_rows]
    sampler = TokenSampler([samplings[i] for i in chosen], [(i, 1) for i in chosen], [1] * num_rows)

    together = draw(sampler, logits[chosen], num_steps=4)

    for place, i in enumerate(chosen):
        alone = draw(TokenSampler([samplings[i]], [(i, 1)], [1]), logits[i : i + 1], num_steps=4)
        assert torch.equal(together[place : place + 1], alone)


def test_rounding_of_logits_changes_no_more_tokens_than_distribution() -> None:
    """Logits that differ in the last digits, as those of other batch sizes do, give the same tokens."""
    logits = random_logits(100, vocabulary=1024, seed=8)
    noise = 1e-4 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(9))
    samplings = [Sampling(temperature=1.0)] * 100

    tokens = draw(sampler_of(samplings), logits, num_steps=100)
    shifted = draw(sampler_of(samplings), logits + noise, num_steps=100)

    # The two distributions differ by 4e-5 in total variation: 0.4 of 10,000 draws.
    assert (tokens != shifted).sum() <= 5


def test_greedy_rows_keep_their_scores() -> None:
    """Greedy sequences pass unchanged beside sampled ones, which have noise."""
    logits = random_logits(3)
    sampler = sampler_of([Sampling(), Sampling(temperature=1.0), Sampling()])

    scores = sampler(torch.zeros(3, 1, dtype=torch.long), logits.clone())

    assert torch.equal(scores[[0, 2]], logits[[0, 2]])
    assert (scores[1] != logits[1]).all()


def test_plain_greedy_batch_needs_no_sampler() -> None:
    """Only sequences that are sampled or penalised need the sampler."""
    assert not sampler_of([Sampling(), Sampling(top_k=3, top_p=0.5)]).is_needed
    assert sampler_of([Sampling(), Sampling(temperature=0.1)]).is_needed
    assert sampler_of([Sampling(repetition_penalty=1.1)]).is_needed


def test_whole_numbers_are_numbers() -> None:
    """In JSON they are often written without a point."""
    sampling = Sampling(temperature=1, top_p=1, min_p=0, repetition_penalty=2)
    assert sampler_of([sampling]).is_needed


def test_repetition_penalty_ignores_padding() -> None:
    """Tokens of a sequence's prompt and answer are penalised, the padding before them is not."""
    ids = torch.tensor([[9, 9, 3, 4, 5], [1, 2, 3, 9, 9]])
    sampler = TokenSampler([Sampling(repetition_penalty=2.0)] * 2, [(0, 0), (1, 0)], [2, 4])
    logits = torch.ones(2, 12)

    scores = sampler(ids, logits)

    assert (scores[0] != 1).nonzero().flatten().tolist() == [3, 4, 5]
    assert (scores[1] != 1).nonzero().flatten().tolist() == [1, 2, 3, 9]
    assert torch.equal(logits, torch.ones(2, 12))


@pytest.mark.parametrize("temperature", [1e-45, 1e-38, 1e-10, 1e-4])
def test_tiny_temperature_is_greedy(temperature) -> None:
    """A temperature that overflows the logits takes the most likely token, as its limit does."""
    logits = random_logits(50)

    tokens = draw(sampler_of([Sampling(temperature=temperature)] * 50), logits)

    assert torch.equal(tokens[:, 0], logits.argmax(dim=-1))
