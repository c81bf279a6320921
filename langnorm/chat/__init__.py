"""What a call of the chat model is made of: its settings, prompt, tools, grammar, and the messages it returns."""
