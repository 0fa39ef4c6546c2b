"""Muon: momentum whose matrices are made orthogonal before they step (K. Jordan et al., 2024; arXiv:2502.16982).

Every direction that a matrix can move in gets the same step, so that rare directions are learned as fast as common
ones. Vectors, and matrices that are tables or first and last layers, step by AdamW inside the same optimiser.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

_ITERATIONS = 5
# Odd polynomial that drives all singular values towards 1 in five rounds, from the method's authors.
_A, _B, _C = 3.4445, -4.7750, 2.0315


class Muon(Optimizer):
    """Muon for parameters in groups marked `orthogonal`, AdamW for the others.

    Args:
        groups: parameter groups; each with "params", and "orthogonal", True or False.
        lr: of AdamW.
        matrix_lr: of orthogonal steps, for a square matrix; taller ones step further by √(rows / columns).
        momentum: of orthogonal steps.
        betas, eps: of AdamW.
        weight_decay: of both, decoupled, times the learning rate.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float = 1e-3,
        matrix_lr: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        groups = [{"lr": matrix_lr if group["orthogonal"] else lr, **group} for group in groups]
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyrefly: ignore[bad-override]
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["orthogonal"]:
                self._step_matrices(parameters, group)
            else:
                self._step_others(parameters, group)

    def _step_matrices(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for parameter in parameters:
            state = self.state[parameter]
            gradient = parameter.grad
            assert gradient is not None
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(gradient)
            momentum = state["momentum"].mul_(group["momentum"]).add_(gradient)
            update = gradient.add(momentum, alpha=group["momentum"]).flatten(1)
            by_shape.setdefault((update.shape[0], update.shape[1]), []).append((parameter, update))
        for (rows, columns), pairs in by_shape.items():
            steps = orthogonalised(torch.stack([update for _, update in pairs]))
            reach = group["lr"] * max(1.0, rows / columns) ** 0.5
            for (parameter, _), step in zip(pairs, steps, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(step.view_as(parameter).to(parameter.dtype), alpha=-reach)

    def _step_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        first, second = group["betas"]
        for parameter in parameters:
            state = self.state[parameter]
            if "step" not in state:
                state |= {"mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
            state["step"] = state.get("step", 0) + 1
        if not parameters:
            return
        states = [self.state[parameter] for parameter in parameters]
        gradients: list[Any] = [parameter.grad for parameter in parameters]
        means, squares = [state["mean"] for state in states], [state["square"] for state in states]
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - second)
        sizes = torch._foreach_div(squares, [1 - second ** state["step"] for state in states])
        torch._foreach_sqrt_(sizes)
        torch._foreach_add_(sizes, group["eps"])
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        reaches = [-group["lr"] / (1 - first ** state["step"]) for state in states]
        torch._foreach_addcdiv_(parameters, means, sizes, reaches)


def orthogonalised(matrices: Tensor) -> Tensor:
    """The nearest matrices with singular values of about 1, (n, rows, columns), by Newton–Schulz iteration in bfloat16.

    Values end between 0.7 and 1.2, which serves as well as 1 and costs a third of the rounds.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)).bfloat16()
    x = x.mT if tall else x
    for _ in range(_ITERATIONS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return (x.mT if tall else x).float()


def muon_groups(networks: dict[str, nn.Module], *, tables: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Split parameters for `Muon`: matrices inside the networks, and everything else.

    Args:
        networks: by component name.
        tables: parts of "component.parameter" names whose matrices are embeddings, first or last layers.
    """
    orthogonal, others = [], []
    for component, network in networks.items():
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                is_table = any(part in f"{component}.{name}" for part in tables)
                (orthogonal if parameter.ndim >= 2 and not is_table else others).append(parameter)
    return [{"params": orthogonal, "orthogonal": True}, {"params": others, "orthogonal": False}]
