"""Recurrent forecasters: RNN, LSTM, GRU."""

from __future__ import annotations

from torch import Tensor, nn

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """A recurrent network over a window, and a linear layer on its last state.

    Args:
        cell: `rnn`, `lstm` or `gru`.
        in_channels: C.
        horizon: H, steps predicted.
        dim: Hidden width.
        depth: Stacked layers.
    """

    def __init__(self, cell: str, in_channels: int, horizon: int, *, dim: int, depth: int):
        super().__init__()
        self.rnn = CELLS[cell](in_channels, dim, depth, batch_first=True)
        self.head = nn.Linear(dim, horizon)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x_BCL: Tensor) -> Tensor:
        """`[B, C, lookback]` → `[B, horizon]`."""
        out_BLD, _ = self.rnn(x_BCL.transpose(1, 2))
        return self.head(out_BLD[:, -1])
