"""Abacus: the small reasoning model that ships with langnorm, so that everything runs offline.

It does arithmetic with up to a dozen steps, calls tools and makes small talk. It is a test bed and a
demonstration, not an assistant: see the model card in `path() / "README.md"`.
"""

from pathlib import Path

CONTEXT_LENGTH = 2048


def path() -> Path:
    """Return the folder of the model: give it to `AutoModelForCausalLM.from_pretrained`."""
    return Path(__file__).parent / "model"
