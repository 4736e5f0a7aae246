from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raymae.models.mae import Encoder, MaskedAutoencoder, PatchEmbedding
from raymae.models.tokens import TokenGrid
from raymae.models.transfer import transfer


def encoder_for(grid: TokenGrid, dim: int = 12, depth: int = 3) -> Encoder:
    return Encoder(PatchEmbedding(grid.token_dim, grid.shape, dim), depth=depth, heads=2, mlp_ratio=2.0)


def unetr(grid: TokenGrid, depth: int = 3, classes: int = 3) -> Any:
    from raymae.models.unetr import Unetr

    return Unetr(encoder_for(grid, depth=depth), grid, classes, feature_size=2)


class Swapped(nn.Module):
    """Our encoder behind the interface of MONAI's ViT."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.features = model.features

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.features(x)


def test_with_patches_of_16_it_is_monais_unetr() -> None:
    from monai.networks.nets import UNETR

    torch.manual_seed(0)
    grid = TokenGrid((32, 16, 48), (16, 16, 16), 2)
    model = unetr(grid, depth=12).eval()
    stock = UNETR(2, 3, grid.size, feature_size=2, hidden_size=12, mlp_dim=24, num_heads=2)
    ours = {key: value for key, value in model.state_dict().items() if not key.startswith("encoder.")}
    theirs = {key: value.shape for key, value in stock.state_dict().items() if not key.startswith("vit.")}
    assert {key: value.shape for key, value in ours.items()} == theirs
    stock.vit = Swapped(model)
    stock.load_state_dict({**stock.state_dict(), **ours})
    x = torch.randn(2, 2, 32, 16, 48)
    assert torch.equal(model(x), stock.eval()(x))


@pytest.mark.parametrize(("patch", "size"), [(2, (4, 6, 8)), (4, (8, 12, 4)), (8, (16, 8, 24)), (16, (16, 32, 16))])
def test_every_voxel_gets_a_score_and_every_weight_a_gradient(patch: int, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = unetr(TokenGrid(size, (patch,) * 3, 1))
    scores = model(torch.randn(2, 1, *size))
    assert scores.shape == (2, 3, *size)
    scores.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_skips_come_from_blocks_at_equal_distances() -> None:
    from raymae.models.unetr import num_levels, skip_blocks

    assert list(skip_blocks(12, 4)) == [3, 6, 9]
    assert list(skip_blocks(4, 3)) == [1, 2]
    assert list(skip_blocks(4, 1)) == []
    assert [num_levels(patch) for patch in (2, 4, 8, 16)] == [1, 2, 3, 4]
    for patch in (0, 1, 6, 32):
        with pytest.raises(ValueError, match="patches of 2, 4, 8 or 16"):
            num_levels(patch)


def test_the_pretrained_encoder_computes_the_same_inside_unetr() -> None:
    torch.manual_seed(0)
    grid = TokenGrid((16, 8, 24), (8, 8, 8), 1)
    pretrained = MaskedAutoencoder(encoder_for(grid), grid.shape, decoder_dim=12, decoder_depth=1, decoder_heads=2)
    model = unetr(grid)
    image, nothing = torch.randn(2, 1, 16, 8, 24), torch.zeros(2, 6, dtype=torch.bool)
    wanted = pretrained.encoder.visible(grid.patchify(image), nothing)[0]
    assert not torch.allclose(model.features(image)[0], wanted)
    coverage = transfer(pretrained.encoder, model)
    assert set(coverage.loaded) == {f"encoder.{key}" for key in pretrained.encoder.state_dict()}
    assert torch.equal(model.features(image)[0], wanted)
    # what comes out of the network does depend on it
    before = model(image)
    with torch.no_grad():
        model.encoder.embedding.project.weight.mul_(2)
    assert not torch.allclose(model(image), before)


def test_layers_for_layer_decay_are_the_encoders() -> None:
    from timm.models import group_parameters

    model = unetr(TokenGrid((16, 16, 16), (8, 8, 8), 1))
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    assert {groups[name] for name, _ in model.named_parameters() if not name.startswith("encoder.")} \
        == {max(groups.values())}
    assert groups["encoder.embedding.project.weight"] == 0
