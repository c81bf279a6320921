"""`langnorm serve`: a chat model behind OpenAI's `/v1/chat/completions`, for any client that speaks that.

A request becomes messages and options of one call of a `ChatLangNorm`, and its message an answer (`langnorm.wire`).
Needs the extra `serve`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langnorm.lazy import lazy_names

if TYPE_CHECKING:
    from langnorm.server.options import ServerOptions
    from langnorm.server.running import serve

__all__ = ["ServerOptions", "serve"]

__getattr__ = lazy_names(__name__, {"ServerOptions": "langnorm.server.options", "serve": "langnorm.server.running"})
