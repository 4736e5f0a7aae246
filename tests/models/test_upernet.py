"""Pyramid, UperNet's decoder, and what the encoder gives them."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from raymae.models.mae import Encoder, MaskedAutoencoder, PatchEmbedding
from raymae.models.tokens import TokenGrid, sincos_positions
from raymae.models.transfer import transfer
from raymae.models.upernet import Pyramid, PyramidPooling, UperNet, norm, taps
from raymae.train.optim import make_optimiser

GRID = TokenGrid((24, 40), (8, 8), 3)  # 3 x 5 tokens


def encoder(grid: TokenGrid = GRID, *, depth: int = 4, like: tuple[int, ...] | None = None) -> Encoder:
    torch.manual_seed(0)
    return Encoder(PatchEmbedding(grid.token_dim, grid.shape, 16, like=like), depth=depth, heads=2)


def network(grid: TokenGrid = GRID, **options: int) -> UperNet:
    return UperNet(encoder(grid, **options), grid, 7, width=12)


@pytest.mark.parametrize(("depth", "wanted"), [(12, (3, 5, 7, 11)), (6, (1, 2, 3, 5)), (1, (0, 0, 0, 0))])
def test_features_come_from_blocks_in_proportion(depth: int, wanted: tuple[int, ...]) -> None:
    assert taps(depth) == wanted


def test_intermediate_features_end_in_what_the_encoder_says() -> None:
    net = encoder().eval()
    tokens = torch.randn(2, 15, GRID.token_dim, generator=Generator().manual_seed(1))
    first, last = net.intermediate(tokens, (0, 3))
    torch.testing.assert_close(last, net(tokens))
    torch.testing.assert_close(first, net.norm(net.blocks[0](net.embedding(tokens))))


def test_the_pyramid_has_four_resolutions() -> None:
    maps = [torch.randn(2, 16, 3, 5) for _ in range(4)]
    shapes = [tuple(level.shape[1:]) for level in Pyramid(16)(maps)]
    assert shapes == [(16, 12, 20), (16, 6, 10), (16, 3, 5), (16, 2, 3)]


def test_pooling_sees_the_whole_map() -> None:
    pooling = PyramidPooling(16, 8).eval()
    x = torch.randn(1, 16, 9, 9, generator=Generator().manual_seed(0))
    other = x.clone()
    other[..., 8, 8] += 5
    assert not torch.allclose(pooling(x)[..., 0, 0], pooling(other)[..., 0, 0])  # 3 x 3 convolutions do not reach


@pytest.mark.parametrize("width", [8, 12, 37, 48, 512])
def test_norm_takes_a_single_cell_of_any_width(width: int) -> None:
    assert norm(width)(torch.randn(1, width, 1, 1)).abs().max() > 0


def test_logits_of_both_heads_are_as_large_as_a_non_square_crop_and_reach_every_weight() -> None:
    net = network()
    image = torch.randn(2, 3, 24, 40, generator=Generator().manual_seed(1))
    logits, auxiliary = net(image)
    assert logits.shape == auxiliary.shape == (2, 7, 24, 40)
    (logits.square().sum() + auxiliary.square().sum()).backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_change_in_the_image_changes_the_logits_there_most() -> None:
    net = network().eval()
    image = torch.randn(1, 3, 24, 40, generator=Generator().manual_seed(1))
    other = image.clone()
    other[..., :8, :8] = -image[..., :8, :8]
    difference = (net(image)[0] - net(other)[0]).abs().mean(dim=1)[0]
    assert difference[:8, :8].mean() > 1.5 * difference[16:, 32:].mean()


def test_layer_decay_knows_the_encoder_from_the_head() -> None:
    net = network()
    groups = make_optimiser(net, lr=1.0, weight_decay=0.1, layer_decay=0.5, betas=(0.9, 0.999)).param_groups
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    named = dict(net.named_parameters())
    assert scale[id(named["classify.1.weight"])] == 1
    assert scale[id(named["encoder.embedding.project.weight"])] < scale[id(named["encoder.blocks.0.mlp.fc1.weight"])]
    assert scale[id(named["encoder.blocks.0.mlp.fc1.weight"])] == 0.5 ** 4


def test_an_encoder_pretrained_on_another_crop_arrives_and_its_positions_are_stretched() -> None:
    small, large = TokenGrid((24, 24), (8, 8), 3), TokenGrid((48, 72), (8, 8), 3)
    pretrained = MaskedAutoencoder(encoder(small), small.shape, decoder_dim=16, decoder_depth=1, decoder_heads=2)
    net = network(large, like=small.shape)
    for parameter in pretrained.parameters():
        parameter.data += 1
    coverage = transfer(pretrained.encoder, net)
    assert len(coverage.loaded) == len(pretrained.encoder.state_dict())
    assert all(torch.equal(net.state_dict()[f"encoder.{key}"], value)
               for key, value in pretrained.encoder.state_dict().items())
    positions = net.encoder.embedding.positions_ND.unflatten(0, large.shape)
    learned = pretrained.encoder.embedding.positions_ND.unflatten(0, small.shape)
    torch.testing.assert_close(positions[:, 1::3], sincos_positions((6, 3), 16, like=(3, 3)).unflatten(0, (6, 3)))
    torch.testing.assert_close(positions[0::2, 1::3].add(positions[1::2, 1::3]).div(2), learned, atol=0.05, rtol=0)


def test_positions_of_the_same_grid_are_not_moved() -> None:
    assert torch.equal(sincos_positions((4, 6), 16, like=(4, 6)), sincos_positions((4, 6), 16))
    assert not torch.equal(sincos_positions((4, 6), 16, like=(2, 6)), sincos_positions((4, 6), 16))
