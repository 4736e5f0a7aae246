from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from raymae.models.tokens import TokenGrid, sincos_positions

GRIDS = [
    TokenGrid((21,), (3,), 3),
    TokenGrid((6, 15), (2, 5), 3),
    TokenGrid((4, 9, 10), (4, 3, 2), 2),
    TokenGrid((2, 9, 4, 5), (1, 3, 2, 5), 3),
    TokenGrid((5,), (1,), 1),
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_unpatchify_inverts_patchify(grid: TokenGrid) -> None:
    x_BCS = torch.randn(2, grid.in_channels, *grid.size, generator=torch.Generator().manual_seed(0))
    tokens_BNP = grid.patchify(x_BCS)
    assert tokens_BNP.shape == (2, grid.num_tokens, grid.token_dim)
    assert torch.equal(grid.unpatchify(tokens_BNP), x_BCS)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_tokens_are_row_major_patches_channel_first(grid: TokenGrid) -> None:
    x_BCS = torch.randn(2, grid.in_channels, *grid.size, generator=torch.Generator().manual_seed(1))
    tokens_BNP = grid.patchify(x_BCS)
    for token, cell in enumerate(itertools.product(*(range(cells) for cells in grid.shape))):
        patch = [slice(c * p, (c + 1) * p) for c, p in zip(cell, grid.patch_size, strict=True)]
        assert torch.equal(tokens_BNP[:, token], x_BCS[(slice(None), slice(None), *patch)].reshape(2, -1))


def test_two_axes_equal_unfold_and_a_strided_convolution() -> None:
    grid = TokenGrid((6, 15), (2, 5), 3)
    x_BCS = torch.randn(2, 3, 6, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    tokens_BNP = grid.patchify(x_BCS)
    assert torch.equal(tokens_BNP, F.unfold(x_BCS, (2, 5), stride=(2, 5)).transpose(1, 2))
    weight_DP = torch.randn(7, grid.token_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    convolved = F.conv2d(x_BCS, weight_DP.reshape(7, 3, 2, 5), stride=(2, 5)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens_BNP @ weight_DP.T, convolved)


def test_what_does_not_fit_is_refused_with_names_and_numbers() -> None:
    with pytest.raises(ValueError, match="size 10 of axis 1 must be a multiple of its patch_size 3"):
        TokenGrid((4, 10), (2, 3), 1)
    with pytest.raises(ValueError, match="multiple of its patch_size 0"):
        TokenGrid((4,), (0,), 1)
    with pytest.raises(ValueError, match="one number per axis"):
        TokenGrid((4, 4), (2,), 1)
    grid = TokenGrid((4, 6), (2, 3), 5)
    with pytest.raises(ValueError, match=r"expected \[B, 5, 4, 6\], got \[2, 5, 6, 4\]"):
        grid.patchify(torch.zeros(2, 5, 6, 4))
    with pytest.raises(ValueError, match=r"expected \[B, 4, 30\], got \[2, 30, 4\]"):
        grid.unpatchify(torch.zeros(2, 30, 4))


def vaswani(position: int, dim: int) -> list[float]:
    """The two halves of He et al.'s variant of eq. 3.5: all sines, then all cosines."""
    angles = [position / 10_000 ** (2 * i / dim) for i in range(dim // 2)]
    return [*map(math.sin, angles), *map(math.cos, angles)]


def test_one_axis_equals_the_formula() -> None:
    positions_ND = sincos_positions((7,), 12)
    torch.testing.assert_close(positions_ND, torch.tensor([vaswani(n, 12) for n in range(7)]))


def test_several_axes_concatenate_the_formula_per_axis_and_leave_the_rest_zero() -> None:
    positions_ND = sincos_positions((3, 5), 14)  # 6 per axis, 2 left over
    expected = [vaswani(i, 6) + vaswani(j, 6) + [0.0, 0.0] for i in range(3) for j in range(5)]
    torch.testing.assert_close(positions_ND, torch.tensor(expected))


@pytest.mark.parametrize(("shape", "dim"), [((7,), 2), ((300,), 12), ((3, 5), 12), ((2, 3, 4), 16), ((2, 3, 2, 5), 17)])
def test_every_token_has_its_own_position(shape: tuple[int, ...], dim: int) -> None:
    positions_ND = sincos_positions(shape, dim)
    assert positions_ND.shape == (math.prod(shape), dim)
    assert positions_ND.dtype == torch.float32
    distances = torch.cdist(positions_ND, positions_ND) + torch.eye(len(positions_ND)) * 9
    assert distances.min() > 1e-3


def test_too_little_width_for_the_axes_is_refused() -> None:
    with pytest.raises(ValueError, match="width 5 is too small for 3 axes; it needs at least 6"):
        sincos_positions((2, 2, 2), 5)
