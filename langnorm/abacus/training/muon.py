"""Muon for stacks of equal matrices, the work shared between the processes of a gloo group.

Muon (Jordan et al., 2024) replaces a matrix's momentum by its nearest orthogonal matrix; the iteration is
Polar Express (Amsel et al., arXiv 2505.16932), whose coefficients change from step to step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
import torch.distributed as dist

# Five steps for singular values in [1e-3, 1], slightly deflated for safety (arXiv 2505.16932, section 4).
_COEFFICIENTS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
_SAFETY = 1.01


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """Return the matrices [N, rows, columns] with all singular values brought near 1."""
    is_tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if is_tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) * _SAFETY + 1e-7)
    for a, b, c in _COEFFICIENTS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: torch.Tensor = x.mT if is_tall else x
    return result


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay.

    Args:
        parameters: Matrices only.
        lr: Step size, scaled per matrix by sqrt(max(1, rows / columns)).
        momentum: Share of the old momentum that is kept.
        weight_decay: Decoupled, relative to `lr`.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.05,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        by_shape: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
        for group in self.param_groups:
            for parameter in group["params"]:
                by_shape[parameter.shape].append(parameter)
        self._stacks = list(by_shape.values())

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Update every matrix; each process of the group orthogonalizes its share of each stack."""
        group = self.param_groups[0]
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        for stack in self._stacks:
            updates = torch.stack([self._nesterov(p, group["momentum"]) for p in stack])
            if world > 1:
                mine = torch.zeros_like(updates)
                mine[rank::world] = orthogonalize(updates[rank::world])
                dist.all_reduce(mine)
                updates = mine
            else:
                updates = orthogonalize(updates)
            scale = max(1.0, updates.size(-2) / updates.size(-1)) ** 0.5
            for parameter, update in zip(stack, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * scale)

    def _nesterov(self, parameter: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum)
