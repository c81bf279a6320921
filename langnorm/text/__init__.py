"""Text as it is generated: decoded, told apart into reasoning, answer and tool calls, and cut into steps."""
