"""langnorm: local language models in LangChain that show how hard they are thinking."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langnorm.lazy import lazy_names

if TYPE_CHECKING:
    from langnorm.chat_models import ChatLangNorm
    from langnorm.engines.registry import unload
    from langnorm.feedback.handler import NormFeedback
    from langnorm.interventions.options import Recursion, Steering, Suppression
    from langnorm.norms.profile import NormProfile
    from langnorm.retry.runnable import NormRetry
    from langnorm.selection.options import Selection
    from langnorm.selection.selector import NormSelector
    from langnorm.trace import NormStep, NormTrace

__version__ = "0.1.0"

__all__ = [
    "ChatLangNorm",
    "NormFeedback",
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
    "unload",
]

__getattr__ = lazy_names(
    __name__,
    {
        "ChatLangNorm": "langnorm.chat_models",
        "NormFeedback": "langnorm.feedback.handler",
        "NormProfile": "langnorm.norms.profile",
        "NormRetry": "langnorm.retry.runnable",
        "NormSelector": "langnorm.selection.selector",
        "NormStep": "langnorm.trace",
        "NormTrace": "langnorm.trace",
        "Recursion": "langnorm.interventions.options",
        "Selection": "langnorm.selection.options",
        "Steering": "langnorm.interventions.options",
        "Suppression": "langnorm.interventions.options",
        "unload": "langnorm.engines.registry",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
