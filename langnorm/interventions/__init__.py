"""What acts on norms: decisions over the tokens of a forward pass, with torch and without any engine.

`options` and `plan` say what is to be done; `recursion`, `steering` and `suppression` hold what one sequence remembers
at one layer; `sequence` is one sequence with all its layers; `forward_pass` is what an engine calls.
"""
