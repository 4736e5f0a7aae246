"""Our block computes what timm's does, in float32 and bfloat16; dropout and stochastic depth keep means and shares."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from raymae.models.block import MANY_TOKENS, Block, Dropout, DropPath, plain_attention, prefers_plain, take


def pair(dim=48, heads=4):
    from timm.models.vision_transformer import Block as Timm

    torch.manual_seed(0)
    theirs, ours = Timm(dim, heads, 4.0, qkv_bias=True), Block(dim, heads, 4.0)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    ours.load_state_dict(theirs.state_dict())  # the names are timm's
    return theirs, ours


def masked(batch, tokens):
    mask = torch.ones(batch, 1, 1, tokens, dtype=torch.bool)
    mask[0, ..., tokens // 2:] = False
    return mask


@pytest.mark.parametrize("mask", [None, masked(3, 10)])
def test_values_and_gradients_are_timms(mask):
    theirs, ours = pair()
    x = torch.randn(3, 10, 48)
    wanted, got = theirs(x, attn_mask=mask), ours(x, mask)
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    for out in (wanted, got):
        out.square().mean().backward()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs.get_parameter(name).grad, rtol=0, atol=0, msg=name)


def test_wanted_tokens_are_those_of_the_whole_block():
    _, ours = pair()
    x, wanted = torch.randn(2, 9, 48), torch.tensor([[0, 3], [8, 1]])
    torch.testing.assert_close(ours(x, wanted_BH=wanted), take(ours(x), wanted), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mask", [None, masked(2, 33)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_plain_attention_is_attention(dtype, mask):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 33, 16, dtype=dtype, requires_grad=True) for _ in range(3))
    wanted = F.scaled_dot_product_attention(q, k, v, mask)
    got = plain_attention(q, k, v, mask)
    torch.testing.assert_close(got, wanted)
    for a, b in zip(*(torch.autograd.grad(out.square().sum(), (q, k, v)) for out in (got, wanted)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_bfloat16_on_a_cpu_takes_plain_products_up_to_many_tokens():
    def made(tokens, dtype, device="cpu"):
        return torch.empty(1, 1, tokens, 8, dtype=dtype, device=device)

    assert prefers_plain(made(64, torch.bfloat16))
    assert not prefers_plain(made(MANY_TOKENS + 1, torch.bfloat16))
    assert not prefers_plain(made(64, torch.float32))
    assert not prefers_plain(made(64, torch.bfloat16, "meta"))


def test_eight_steps_in_bfloat16_lose_little_against_float32():
    losses = {}
    for half in (False, True):
        _, block = pair()
        optimiser = torch.optim.AdamW(block.parameters(), lr=1e-3)
        generator = torch.Generator().manual_seed(1)
        for _ in range(8):
            x = torch.randn(16, 20, 48, generator=generator)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                out = block(x)
            loss = F.mse_loss(out.float(), x.roll(1, 1))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.setdefault(half, []).append(float(loss.detach()))
    assert losses[True] == pytest.approx(losses[False], rel=5e-3)
    assert losses[True] != losses[False]
    assert losses[False][-1] < losses[False][0]


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_the_mean_and_drops_the_share(rate, dtype):
    torch.manual_seed(0)
    layer, x = Dropout(rate).train(), torch.ones(300, 401, dtype=dtype)  # not a multiple of eight
    out = layer(x).float()
    rounded = min(max(round(rate * 256), 1), 255) / 256
    assert float((out == 0).float().mean()) == pytest.approx(rounded, abs=0.005)
    assert float(out.mean()) == pytest.approx(1, abs=0.02 if rate < 0.9 else 0.2)
    assert out.unique().tolist() == pytest.approx([0.0, 1 / (1 - rounded)], rel=5e-3)
    # neighbours fall independently of each other: bytes of a word do not repeat
    flat = (out.reshape(-1)[: 8 * (out.numel() // 8)].view(-1, 8) == 0).float()
    assert torch.allclose(flat.mean(0), torch.tensor(rounded), atol=0.02)
    if 0.1 <= rate <= 0.9:
        assert float(torch.corrcoef(flat.T).fill_diagonal_(0).abs().max()) < 0.05


def test_dropout_follows_torchs_seed_and_rests_while_evaluating():
    layer, x = Dropout(0.3), torch.randn(7, 5, requires_grad=True)
    torch.manual_seed(5)
    first = layer(x)
    torch.manual_seed(5)
    assert torch.equal(layer(x), first)
    assert not torch.equal(layer(x), first)
    first.sum().backward()
    assert torch.equal(x.grad == 0, first == 0)
    assert layer.eval()(x) is x
    assert Dropout(0.0).train()(x) is x


def test_stochastic_depth_leaves_whole_examples_out():
    torch.manual_seed(0)
    out = DropPath(0.25).train()(torch.ones(4000, 2, 3))
    rows = out.flatten(1)
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert float((rows[:, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(rows.max()) == pytest.approx(1 / 0.75)
    assert DropPath(0.25).eval()(out) is out
