"""OpenAI's chat completions as langnorm speaks them: what a server reads and writes, and a client writes and reads.

What OpenAI's format has a place for goes there. Everything else is in one object, `langnorm`: in a request the options
that only langnorm has, in an answer (`message.langnorm`, or `delta.langnorm` of a stream's last chunk) what it found.
"""
