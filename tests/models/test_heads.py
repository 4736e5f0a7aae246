from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from raymae.errors import TransferError
from raymae.models.heads import FlattenHead, LinearHead
from raymae.models.mae import Encoder, MaskedAutoencoder, PatchEmbedding
from raymae.models.recurrent import CELLS, Recurrent
from raymae.models.transfer import transfer
from raymae.train.optim import make_optimiser, set_lr

B, N, P, D, H, C, L = 2, 7, 5, 12, 3, 4, 11


def encoder(depth: int = 3, dim: int = D) -> Encoder:
    return Encoder(PatchEmbedding(P, (N,), dim), depth=depth, heads=3)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "flatten": (lambda: FlattenHead(encoder(), H, dropout=0.1), (B, N, P)),
    "linear": (lambda: LinearHead(C * L, H), (B, C, L)),
    **{cell: (lambda cell=cell: Recurrent(cell, C, H, dim=6, depth=2), (B, C, L)) for cell in CELLS},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_heads_start_at_zero_output_and_can_learn(name: str) -> None:
    make, shape = NETWORKS[name]
    model = make()
    output = model(torch.randn(shape))
    assert output.shape == (B, H)
    assert not output.any()
    (output - 1).square().sum().backward()
    head = model.get_submodule("head")
    assert isinstance(head, nn.Linear)
    assert head.weight.grad is not None
    assert head.weight.grad.any()


@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_reads_all_steps_in_order(cell: str) -> None:
    model = Recurrent(cell, C, H, dim=6, depth=1)
    nn.init.normal_(model.head.weight)
    assert isinstance(model.rnn, CELLS[cell])
    x_BCL = torch.randn(B, C, L)
    changed = x_BCL.clone()
    changed[:, 1, 0] += 1
    assert not torch.equal(model(x_BCL), model(changed))
    assert not torch.allclose(model(x_BCL), model(x_BCL.flip(-1)))


def test_layer_decay_of_every_layer() -> None:
    """With depth d, block i learns at layer_decay ** (d - i), the head at 1, the embedding slowest."""
    depth, decay, lr = 3, 0.5, 0.1
    model = FlattenHead(encoder(depth), H)
    optimiser = make_optimiser(model, lr=lr, weight_decay=0.05, layer_decay=decay, betas=(0.9, 0.95))
    set_lr(optimiser, lr)
    rate = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    found = {name: rate[id(p)] / lr for name, p in model.named_parameters()}
    for name, scale in found.items():
        if name.startswith("encoder.blocks."):
            wanted = decay ** (depth - int(name.split(".")[2]))
        elif name.startswith("encoder.norm"):
            wanted = decay  # with the last block
        else:
            wanted = decay ** (depth + 1) if name.startswith("encoder.embedding") else 1.0
        assert scale == pytest.approx(wanted), name


@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
def test_biases_and_norms_do_not_decay_and_every_parameter_is_optimised_once(layer_decay: float) -> None:
    model = FlattenHead(encoder(), H)
    optimiser = make_optimiser(model, lr=0.1, weight_decay=0.05, layer_decay=layer_decay, betas=(0.9, 0.95))
    seen = [p for group in optimiser.param_groups for p in group["params"]]
    assert sorted(map(id, seen)) == sorted(id(p) for p in model.parameters())
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.0 if parameter.ndim <= 1 else 0.05)
            assert layer_decay < 1 or group["lr_scale"] == 1.0


def test_transfer_reports_what_it_covered() -> None:
    pretrained = MaskedAutoencoder(encoder(), (N,), decoder_dim=8, decoder_depth=1, decoder_heads=2)
    model = FlattenHead(encoder(), H)
    coverage = transfer(pretrained.encoder, model)
    assert coverage.fresh == ("head.weight", "head.bias")
    assert coverage.loaded == tuple(sorted(key for key in model.state_dict() if key.startswith("encoder.")))
    head = sum(p.numel() for p in model.head.parameters())
    total = sum(p.numel() for p in model.parameters())
    assert coverage.share == pytest.approx(1 - head / total)
    for key, value in pretrained.encoder.state_dict().items():
        assert torch.equal(model.state_dict()[f"encoder.{key}"], value)
    x = torch.randn(B, N, P)
    assert torch.equal(model.encoder.eval()(x), pretrained.encoder.eval()(x))


def test_transfer_copies_and_does_not_share() -> None:
    source, model = encoder(), FlattenHead(encoder(), H)
    transfer(source, model)
    with torch.no_grad():
        source.norm.weight.fill_(7.0)
    assert not (model.encoder.norm.weight == 7.0).any()


def test_transfer_fails_where_a_key_or_a_shape_does_not_fit() -> None:
    with pytest.raises(TransferError, match=r"12 of 40 encoder keys have no counterpart.*blocks\.2.*, …"):
        transfer(encoder(depth=3), FlattenHead(encoder(depth=2), H))
    with pytest.raises(TransferError, match="have no counterpart"):
        transfer(encoder(), FlattenHead(encoder(), H), rename=lambda key: f"backbone.{key}")
    with pytest.raises(TransferError, match=r"shape \[12, 5\], the network expects \[24, 5\].*same sizes"):
        transfer(encoder(), FlattenHead(encoder(dim=24), H))
    with pytest.raises(TransferError, match="no weights"):
        transfer(nn.Identity(), FlattenHead(encoder(), H))
