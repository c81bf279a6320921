"""Whether a model's own generation configuration says anything that can be done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langnorm.checks import brief
from langnorm.engines.options import Sampling
from langnorm.engines.transformers.config_processors import sampling_defaults
from langnorm.errors import ModelError, OptionError

if TYPE_CHECKING:
    from transformers import GenerationConfig

_IDS = ("eos_token_id", "bos_token_id")


def checked_sampling_defaults(config: GenerationConfig) -> dict[str, Any]:
    """Return what a model's own generation configuration says of sampling, as fields of `Sampling`.

    Raises:
        ModelError: A field has another value: files are written by hand, too.
    """
    for name in _IDS:
        value = getattr(config, name, None)
        ids = value if isinstance(value, list | tuple) else [] if value is None else [value]
        if not all(_is_id(item) for item in ids):
            msg = (
                f"`{name}={brief(value)}` in the model's generation configuration is not allowed. Use the id of a "
                "token, or a list of them, in its `generation_config.json`."
            )
            raise ModelError(msg)
    defaults = sampling_defaults(config)
    try:
        Sampling(**defaults)
    except OptionError as error:
        msg = f"In the model's generation configuration {error} It is in its `generation_config.json`."
        raise ModelError(msg) from error
    return defaults


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
