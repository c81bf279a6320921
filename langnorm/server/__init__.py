"""`langnorm serve`: a chat model behind OpenAI's `/v1/chat/completions`, for any client that speaks that.

A request becomes messages and options of one call of a `ChatLangNorm`, and its message an answer (`langnorm.wire`).
Needs the extra `serve`.
"""
