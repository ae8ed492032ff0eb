"""Adam for many seeds at once, each a row that may stand still while others go on."""

from __future__ import annotations

import torch
from torch import Tensor


class Adam:
    """Kingma & Ba (arXiv 1412.6980). A row's path does not depend on the other rows."""

    def __init__(self, theta: Tensor, learning_rate: float, betas: tuple[float, float], epsilon: float = 1e-8):
        self.learning_rate, self.betas, self.epsilon = learning_rate, betas, epsilon
        self._mean, self._square = torch.zeros_like(theta), torch.zeros_like(theta)
        self._steps = torch.zeros(len(theta), 1, dtype=theta.dtype, device=theta.device)

    def step(self, theta: Tensor, gradient: Tensor, moving: Tensor) -> Tensor:
        """New [seeds, size]; rows that `moving` [seeds] leaves out stay, as do their moments."""
        first, second = self.betas
        on = moving[:, None].to(theta.dtype)
        self._steps += on
        self._mean += on * (1 - first) * (gradient - self._mean)
        self._square += on * (1 - second) * (gradient**2 - self._square)
        steps = self._steps.clamp_min(1)
        mean, square = self._mean / (1 - first**steps), self._square / (1 - second**steps)
        return theta - on * self.learning_rate * mean / (square.sqrt() + self.epsilon)
