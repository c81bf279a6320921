"""The benchmark of SAEs on stored answers reads them as the model does, and reports on what it has read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks import real_sae
from benchmarks.real_decoder import Decoder
from benchmarks.real_samples import sample, save
from benchmarks.real_states import collect, read_answers
from langnorm.probes.sae import load_sae

PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8], [9], [3, 1]]


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    """Return a model with random weights."""
    config = Qwen2Config(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return Qwen2ForCausalLM(config).eval()


def store_answers(model: Qwen2ForCausalLM, folder: Path, n: int, max_tokens: int) -> None:
    """Draw answers and store them as the benchmark of samples does."""
    folder.mkdir()
    drawn = sample(Decoder(model), PROMPTS, n, end_ids=[*range(40, 50)], temperature=1.0, seed=1, max_tokens=max_tokens)
    save(folder / "00000.npz", drawn, 0, n)


def test_states_are_those_of_the_model(model: Qwen2ForCausalLM, tmp_path: Path) -> None:
    """Of the tokens of each answer that were run, whatever the answers beside it in the batch."""
    store_answers(model, tmp_path / "answers", 3, 30)
    answers = read_answers(tmp_path / "answers", PROMPTS)
    states = collect(model, answers, [0, 1], 64)
    assert len(answers.take(1).ids) <= len(PROMPTS)
    for number, (prompt, ids) in enumerate(zip(answers.prompts, answers.ids, strict=True)):
        with torch.inference_mode():
            hidden = model(torch.tensor([prompt + ids]), output_hidden_states=True).hidden_states
        rows = states.answers == number
        assert states.ids[rows].tolist() == ids
        for layer in (0, 1):
            expected = hidden[layer + 1][0, len(prompt) :]
            torch.testing.assert_close(states.states[layer][rows], expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(states.norms[rows, layer], expected.norm(dim=1), rtol=1e-4, atol=1e-4)


def test_a_whole_run(model: Qwen2ForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes a report and an SAE that can be read."""
    store_answers(model, tmp_path / "reasoned", 2, 30)
    store_answers(model, tmp_path / "direct", 1, 4)
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"problems": [{"ids": ids} for ids in PROMPTS]}))
    monkeypatch.setattr(real_sae, "load_model", lambda *_: model)
    options = "--layer 1 --held-out 0.5 --expansion 1 --k 4 --seconds 0 --batch-size 16 --all-layers --layer-k 4"
    options += " --layer-expansion 1 --layer-steps 3 --layer-samples 1 --device cpu"
    paths = [str(tmp_path / name) for name in ("m.gguf", "prompts.json", "reasoned", "direct", "out")]
    monkeypatch.setattr(sys, "argv", ["real_sae", *paths, *options.split()])
    real_sae.main()

    report = json.loads((tmp_path / "out" / "sae.json").read_text())
    row = report["saes"][0]
    assert (row["layer"], row["k"], report["num_held_out"]) == (1, 4, 2)
    assert row["bound"]["above_bound_on_states"] == row["bound"]["above_bound_on_norms"] == 0
    assert row["held_out"]["num_states"] == row["features"]["num_tokens"]
    assert [layer["layer"] for layer in report["layers"]] == [layer["layer"] for layer in report["norms"]] == [0, 1, 2]
    assert load_sae(tmp_path / "out" / "layer1-k4").config.d_in == 32
