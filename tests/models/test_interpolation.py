"""What takes no learning: straight lines in time, blurred surroundings in space."""

from __future__ import annotations

import math

import pytest
import torch

from raymae.models.interpolation import fill_image, fill_series


def test_a_straight_line_is_drawn_between_visible_values_and_ends_are_repeated():
    seen = torch.tensor([[0, 1, 0, 0, 1, 0], [1, 0, 1, 1, 0, 0]]).bool()
    values = torch.tensor([[9.0, 1, 9, 9, 7, 9], [2.0, 9, 4, 5, 9, 9]])
    assert fill_series(values, seen).tolist() == [[1, 1, 3, 5, 7, 7], [2, 3, 4, 5, 5, 5]]


def test_a_series_agrees_with_numpy():
    import numpy as np

    chance = np.random.default_rng(0)
    values = chance.normal(size=(20, 37))
    seen = chance.random((20, 37)) < 0.3
    seen[:, 5] = True
    filled = fill_series(torch.tensor(values), torch.tensor(seen)).numpy()
    steps = np.arange(37)
    for row in range(20):
        expected = np.interp(steps, steps[seen[row]], values[row, seen[row]])
        assert np.allclose(filled[row], expected)


@pytest.mark.parametrize("size", [(16,), (13, 18), (8, 9, 5), (1, 7), (2, 2)], ids=str)
def test_hidden_values_are_never_read_and_visible_ones_are_kept(size):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 2, *size, generator=generator)
    seen = torch.rand(3, 1, *size, generator=generator) < 0.4
    seen.flatten(1)[:, 0] = True
    filled = fill_image(image.masked_fill(~seen, math.nan), seen)
    assert torch.isfinite(filled).all()
    assert torch.equal(filled[seen.expand_as(filled)], image[seen.expand_as(image)])
    assert filled.min() >= image.min() - 1e-6
    assert filled.max() <= image.max() + 1e-6


def test_along_one_axis_it_is_about_the_straight_line():
    seen = torch.zeros(1, 1, 33).bool()
    seen[..., [0, 8, 12, 32]] = True
    values = torch.zeros(1, 1, 33)
    values[..., [0, 8, 12, 32]] = torch.tensor([0.0, 4.0, 2.0, 12.0])
    lines = fill_series(values[0], seen[0])
    assert (fill_image(values, seen)[0] - lines).abs().max() < 0.6  # of 12


def test_a_constant_image_is_filled_with_its_constant():
    seen = torch.zeros(1, 1, 11, 14).bool()
    seen[..., 3, 9] = True
    assert torch.allclose(fill_image(torch.full((1, 3, 11, 14), 0.25), seen), torch.full((1, 3, 11, 14), 0.25))


@pytest.mark.parametrize("patch", [4, 8])
def test_a_smooth_image_is_told_far_better_than_by_its_mean(patch):
    rows, columns = torch.meshgrid(torch.linspace(0, 3, 64), torch.linspace(0, 2, 64), indexing="ij")
    image = (rows.sin() + columns.cos())[None, None]
    shown = torch.rand(1, 1, 64 // patch, 64 // patch, generator=torch.Generator().manual_seed(1)) < 0.4
    seen = shown.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    error = (fill_image(image, seen) - image)[~seen].square().mean()
    assert error < 0.15 * (image[seen].mean() - image)[~seen].square().mean()
