"""`engine="remote"`: a chat model whose calls are answered by a server, `langnorm serve` or one that speaks like it.

The server applies template, tools and parsing, so that whole messages come back: no weights, no tokenizer and no torch
are needed here.
"""
