"""How an engine chooses tokens: one rule for all engines that see the logits."""
