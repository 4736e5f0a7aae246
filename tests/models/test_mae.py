from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from raymae.models.mae import Encoder, MaskedAutoencoder, PatchEmbedding, take, visible_first

B, N, P, D, T = 3, 7, 5, 12, 4


def encoder(**changes: Any) -> Encoder:
    return Encoder(PatchEmbedding(P, (N,), D), **{"depth": 2, "heads": 3, **changes})


def make_mae(**changes: Any) -> MaskedAutoencoder:
    torch.manual_seed(0)
    options = {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2, **changes}
    return MaskedAutoencoder(encoder(), (N,), **options).eval()


def tokens(last: int = P, seed: int = 1) -> Tensor:
    return torch.randn(B, N, last, generator=Generator().manual_seed(seed)) * 3 + 2


EQUAL = torch.tensor([[0, 1, 0, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1]], dtype=torch.bool)
UNEQUAL = torch.tensor([[0, 1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 1]], dtype=torch.bool)
masks = pytest.mark.parametrize("hidden_BN", [EQUAL, UNEQUAL], ids=["equal", "unequal"])


@masks
def test_loss_counts_hidden_tokens_only(hidden_BN: Tensor) -> None:
    model, x = make_mae(), tokens()
    loss = model.loss(x, hidden_BN, target_BNT=x)
    changed = torch.where(hidden_BN.unsqueeze(-1), x, 1e3)
    assert torch.equal(model.loss(x, hidden_BN, target_BNT=changed), loss)
    assert model.loss(x, hidden_BN, target_BNT=x + 1) != loss
    with torch.no_grad():
        error = (model(x, hidden_BN) - x)[hidden_BN].square().mean()
    torch.testing.assert_close(loss, error)
    assert torch.equal(model.loss(x, hidden_BN), loss)  # the tokens are the target by default


@pytest.mark.parametrize("norm_target", [False, True])
def test_missing_values_are_not_counted(norm_target: bool) -> None:
    model, x = make_mae(norm_target=norm_target), tokens()
    missing_BNT = torch.zeros(x.shape, dtype=torch.bool)
    missing_BNT[0, 1] = missing_BNT[1, 0] = missing_BNT[2, 0, :2] = True  # two hidden, one of them in part, one visible
    loss = model.loss(x, EQUAL, target_BNT=x, missing_BNT=missing_BNT)
    junk = torch.where(missing_BNT, 1e3, x)
    assert torch.equal(model.loss(x, EQUAL, target_BNT=junk, missing_BNT=missing_BNT), loss)
    assert not torch.equal(model.loss(x, EQUAL, target_BNT=junk), loss)
    if not norm_target:
        with torch.no_grad():
            counted_BNT = EQUAL[..., None] & ~missing_BNT
            torch.testing.assert_close(loss, (model(x, EQUAL) - x)[counted_BNT].square().mean())
    torch.testing.assert_close(model.loss(x, EQUAL, missing_BNT=torch.zeros_like(missing_BNT)), model.loss(x, EQUAL))
    nothing = model.loss(x, EQUAL, missing_BNT=torch.ones_like(missing_BNT))
    assert nothing == 0


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("norm_target", [False, True])
def test_what_the_loss_does_not_count_need_not_be_computed(depth: int, norm_target: bool) -> None:
    missing_BNT = torch.zeros(tokens().shape, dtype=torch.bool)
    missing_BNT[0, 1] = missing_BNT[1, 5, 0] = True
    found = []
    for num_visible in (None, 4):
        model = make_mae(decoder_depth=depth, norm_target=norm_target)
        loss = model.loss(tokens(), EQUAL, missing_BNT=missing_BNT, num_visible=num_visible)
        loss.backward()
        found.append((loss, *(p.grad for p in model.parameters())))
    torch.testing.assert_close(found[1], found[0])


@masks
def test_hidden_values_reach_nothing(hidden_BN: Tensor) -> None:
    model, x = make_mae(), tokens()
    other = torch.where(hidden_BN.unsqueeze(-1), tokens(seed=9) * 100, x)
    assert torch.equal(model(x, hidden_BN), model(other, hidden_BN))
    assert not torch.allclose(model(x, hidden_BN), model(x + (~hidden_BN).unsqueeze(-1), hidden_BN))


def test_rows_with_unequal_numbers_of_visible_tokens_equal_rows_alone() -> None:
    model, x = make_mae(), tokens()
    together = model(x, UNEQUAL)
    _, _, padded_BV = model.encoder.visible(x, UNEQUAL)
    assert padded_BV is not None
    assert (~padded_BV).sum(dim=1).tolist() == [4, 1, 6]
    for row in range(B):
        alone = model(x[row:row + 1], UNEQUAL[row:row + 1])
        torch.testing.assert_close(together[row:row + 1], alone, rtol=1e-5, atol=1e-5)
        features, _, padding = model.encoder.visible(x[row:row + 1], UNEQUAL[row:row + 1])
        assert padding is None
        visible = model.encoder.visible(x, UNEQUAL)[0][row:row + 1, :features.shape[1]]
        torch.testing.assert_close(visible, features, rtol=1e-5, atol=1e-5)


def test_a_row_without_visible_tokens_leaves_loss_and_gradients_finite() -> None:
    model, hidden_BN = make_mae(), UNEQUAL.clone()
    hidden_BN[1] = True
    loss = model.loss(tokens(), hidden_BN)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_visible_with_nothing_hidden_is_forward() -> None:
    x, nothing = tokens(), torch.zeros(B, N, dtype=torch.bool)
    model = encoder().eval()
    features, index_BV, padded_BV = model.visible(x, nothing)
    assert torch.equal(features, model(x))
    assert torch.equal(index_BV, torch.arange(N).expand(B, N))
    assert padded_BV is None


@masks
def test_visible_tokens_keep_their_order(hidden_BN: Tensor) -> None:
    x = tokens()
    index_BV, padded_BV = visible_first(hidden_BN)
    visible_BVD = take(x, index_BV)
    for row in range(B):
        expected = (~hidden_BN[row]).nonzero().squeeze(1)
        assert torch.equal(index_BV[row, :len(expected)], expected)
        assert torch.equal(visible_BVD[row, :len(expected)], x[row, expected])
        if padded_BV is not None:
            assert padded_BV[row].tolist() == [False] * len(expected) + [True] * (len(index_BV[row]) - len(expected))


def test_token_positions_matter_to_encoder_and_decoder() -> None:
    x, nothing = tokens(), torch.zeros(B, N, dtype=torch.bool)
    order = torch.arange(N - 1, -1, -1)
    model = make_mae()
    assert not torch.allclose(model.encoder(x)[:, order], model.encoder(x[:, order]), atol=1e-3)
    with torch.no_grad():
        model.encoder.embedding.positions_ND.zero_()
    torch.testing.assert_close(model.encoder(x)[:, order], model.encoder(x[:, order]), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(model(x, nothing)[:, order], model(x[:, order], nothing), atol=1e-3)


@pytest.mark.parametrize("norm_target", [False, True])
@masks
def test_reconstruction_keeps_visible_tokens_and_the_datas_scale(hidden_BN: Tensor, norm_target: bool) -> None:
    model, x, target = make_mae(target_dim=T, norm_target=norm_target), tokens(), tokens(T, seed=2)
    whole = model.reconstruct(x, hidden_BN, target)
    assert torch.equal(whole[~hidden_BN], target[~hidden_BN])
    predicted = model(x, hidden_BN)
    if norm_target:
        predicted = predicted * (target.var(dim=-1, keepdim=True) + 1e-6).sqrt() + target.mean(dim=-1, keepdim=True)
    torch.testing.assert_close(whole[hidden_BN], predicted[hidden_BN])


def test_norm_target_is_each_tokens_own_statistic() -> None:
    """A perfect prediction of (target - mean) / deviation of every token has no loss."""
    model, x, target = make_mae(target_dim=T, norm_target=True), tokens(), tokens(T, seed=2)
    perfect = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    model.forward = lambda *_: perfect  # type: ignore[method-assign]
    assert model.loss(x, EQUAL, target_BNT=target) < 1e-10
    torch.testing.assert_close(model.reconstruct(x, EQUAL, target), target)
    assert model.loss(x, EQUAL, target_BNT=target * 5 + 3) < 1e-6  # level and scale of a token are not asked for
    plain = make_mae(target_dim=T)
    plain.forward = lambda *_: perfect  # type: ignore[method-assign]
    assert plain.loss(x, EQUAL, target_BNT=target) > 1


def test_the_target_may_hold_less_than_a_token() -> None:
    assert make_mae(target_dim=T)(tokens(), EQUAL).shape == (B, N, T)
    assert make_mae()(tokens(), EQUAL).shape == (B, N, P)


def test_every_parameter_learns() -> None:
    model = make_mae().train()
    model.loss(tokens(), EQUAL).backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []
