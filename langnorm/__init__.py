"""langnorm: local language models in LangChain that show how hard they are thinking."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langnorm.chat_models import ChatLangNorm
    from langnorm.interventions.options import Recursion, Steering, Suppression
    from langnorm.norms.profile import NormProfile
    from langnorm.options import Selection
    from langnorm.retry import NormRetry
    from langnorm.selection import NormSelector
    from langnorm.trace import NormStep, NormTrace

__version__ = "0.1.0"

__all__ = [
    "ChatLangNorm",
    "NormProfile",
    "NormRetry",
    "NormSelector",
    "NormStep",
    "NormTrace",
    "Recursion",
    "Selection",
    "Steering",
    "Suppression",
    "__version__",
]

_MODULES = {
    "ChatLangNorm": "langnorm.chat_models",
    "NormProfile": "langnorm.norms.profile",
    "NormRetry": "langnorm.retry",
    "NormSelector": "langnorm.selection",
    "NormStep": "langnorm.trace",
    "NormTrace": "langnorm.trace",
    "Recursion": "langnorm.interventions.options",
    "Selection": "langnorm.options",
    "Steering": "langnorm.interventions.options",
    "Suppression": "langnorm.interventions.options",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: `import langnorm` alone is quick."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    msg = f"module `langnorm` has no attribute `{name}`"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
