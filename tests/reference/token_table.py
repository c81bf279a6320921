"""What is usual for each token id, by keeping every norm in a list: loops over floats, no numpy.

Independent of langnorm on purpose.
"""

from __future__ import annotations

import math
from collections import defaultdict

PRIOR = 10


class ListsOfNorms:
    """All logarithms of norms, by token id."""

    def __init__(self, num_layers: int) -> None:
        self.num_layers = num_layers
        self.seen: dict[int, list[list[float]]] = defaultdict(list)

    def add(self, token_id: int, norms: list[float]) -> None:
        """Keep a token, unless a norm of it has no logarithm."""
        if all(0 < norm < math.inf for norm in norms):
            self.seen[token_id].append([math.log(norm) for norm in norms])

    def average(self, rows: list[list[float]], layer: int) -> float:
        """Return the mean of a layer."""
        return math.fsum(row[layer] for row in rows) / len(rows)

    def squares(self, rows: list[list[float]], layer: int, around: float) -> float:
        """Return the summed squared distances of a layer."""
        return math.fsum((row[layer] - around) ** 2 for row in rows)

    @property
    def all_rows(self) -> list[list[float]]:
        """Every token."""
        return [row for rows in self.seen.values() for row in rows]

    def within(self, layer: int) -> float:
        """Return the variance around the means of the ids, which each cost a degree of freedom."""
        num_tokens = len(self.all_rows)
        if num_tokens == len(self.seen):
            return max(1e-6, self.squares(self.all_rows, layer, self.average(self.all_rows, layer)) / num_tokens)
        total = math.fsum(self.squares(rows, layer, self.average(rows, layer)) for rows in self.seen.values())
        return max(1e-6, total / (num_tokens - len(self.seen)))

    def explained(self, layer: int) -> float:
        """Return which share of a layer's variance the id explains."""
        num_tokens = len(self.all_rows)
        whole = self.squares(self.all_rows, layer, self.average(self.all_rows, layer))
        if num_tokens == len(self.seen) or whole == 0:
            return 0.0
        return max(0.0, 1 - self.within(layer) / (whole / (num_tokens - 1)))

    def relative(self, token_id: int, norms: list[float]) -> list[float]:
        """Return how far norms are above the usual ones of their id, in its spread."""
        rows, layers = self.seen.get(token_id, []), range(self.num_layers)
        usual, squares = [], []
        for layer in layers:
            prior = [self.average(self.all_rows, layer)] * PRIOR
            known = prior + [row[layer] for row in rows]
            usual.append(math.fsum(known) / len(known))
            squares.append(self.squares(rows, layer, usual[layer]) / self.within(layer))
        variance = (math.fsum(squares) / self.num_layers + PRIOR) / (len(rows) + PRIOR)
        found = []
        for layer, norm in enumerate(norms):
            if norm == 0:
                found.append(-10.0)
                continue
            z = (math.log(norm) - usual[layer]) / math.sqrt(variance * self.within(layer))
            found.append(min(10.0, max(-10.0, z)))
        return found
