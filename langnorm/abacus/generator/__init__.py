"""The seeded generator of the conversations that Abacus learns from and is tested on.

`corpus.draw` mixes three skills, each in a module of its own: `arithmetic`, `tools` and `chat`.
"""
