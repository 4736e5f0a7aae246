from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from raymae.models.masking import draw_mask, num_hidden, random_mask, suffix_mask


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@given(st.integers(2, 60), st.floats(0.001, 0.999), st.booleans(), st.sampled_from(["random", "suffix"]))
def test_every_row_hides_the_same_rounded_number(tokens: int, ratio: float, keep_last: bool, kind: str) -> None:
    mask_BN = draw_mask(kind, 3, tokens, ratio, generator(), keep_last=keep_last)  # type: ignore[arg-type]
    assert mask_BN.dtype == torch.bool
    assert mask_BN.shape == (3, tokens)
    assert mask_BN.sum(dim=1).tolist() == [min(max(round(ratio * tokens), 1), tokens - 1)] * 3


def test_known_counts() -> None:
    assert [num_hidden(7, ratio) for ratio in (0.01, 0.5, 0.75, 0.99)] == [1, 4, 5, 6]
    assert num_hidden(196, 0.75) == 147


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_ratio_outside_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="mask_ratio must lie strictly between 0 and 1"):
        random_mask(2, 7, ratio, generator())


def test_a_single_token_cannot_be_masked() -> None:
    with pytest.raises(ValueError, match="at least 2 tokens, got 1; use a smaller patch_size"):
        suffix_mask(2, 1, 0.5, generator())


def test_suffix_hides_the_end() -> None:
    assert suffix_mask(2, 7, 0.4, generator()).int().tolist() == [[0, 0, 0, 0, 1, 1, 1]] * 2


def test_keep_last_never_hides_the_last_token() -> None:
    for ratio in (0.1, 0.5, 0.99):
        assert not random_mask(500, 7, ratio, generator(), keep_last=True)[:, -1].any()
    assert random_mask(500, 7, 0.5, generator())[:, -1].any()


def test_every_token_is_hidden_equally_often() -> None:
    rows, tokens, hidden = 7000, 7, 3
    counts_N = random_mask(rows, tokens, hidden / tokens, generator(5)).sum(dim=0).double()
    expected = rows * hidden / tokens
    chi_square = float(((counts_N - expected) ** 2 / (expected * (1 - hidden / tokens))).sum())
    assert chi_square < 22.5  # 6 degrees of freedom: exceeded once in a thousand seeds
    kept_last_N = random_mask(rows, tokens, hidden / tokens, generator(5), keep_last=True).sum(dim=0).double()[:-1]
    expected = rows * hidden / (tokens - 1)
    assert float(((kept_last_N - expected) ** 2 / (expected * (1 - hidden / (tokens - 1)))).sum()) < 20.5


def test_pairs_of_tokens_are_hidden_independently_of_their_distance() -> None:
    """A block or stride in disguise would pass the count per token, but hide neighbours together."""
    mask_BN = random_mask(7000, 7, 3 / 7, generator(6)).double()
    together_NN = mask_BN.T @ mask_BN / 7000
    off_diagonal = together_NN[~torch.eye(7, dtype=torch.bool)]
    assert (off_diagonal - (3 * 2) / (7 * 6)).abs().max() < 0.02


def test_mixed_draws_random_and_suffix_rows_about_equally_often() -> None:
    mask_BN = draw_mask("mixed", 2000, 7, 0.4, generator(), keep_last=True)
    assert (mask_BN.sum(dim=1) == 3).all()
    is_suffix_B = mask_BN[:, -1]  # a random row keeps its last token
    assert torch.equal(mask_BN[is_suffix_B], suffix_mask(int(is_suffix_B.sum()), 7, 0.4, generator()))
    assert 900 < int(is_suffix_B.sum()) < 1100
    assert len(mask_BN[~is_suffix_B].unique(dim=0)) == 20  # all choices of 3 among 6


@pytest.mark.parametrize("kind", ["random", "mixed"])
def test_a_generator_repeats_exactly_and_moves_on(kind: str) -> None:
    one, other = generator(3), generator(3)
    first, second = (draw_mask(kind, 5, 12, 0.5, one) for _ in range(2))  # type: ignore[arg-type]
    torch.manual_seed(1)  # the global generator has no say
    assert torch.equal(first, draw_mask(kind, 5, 12, 0.5, other))  # type: ignore[arg-type]
    assert not torch.equal(first, second)
    assert not torch.equal(first, draw_mask(kind, 5, 12, 0.5, generator(4)))  # type: ignore[arg-type]
    assert len(draw_mask("random", 50, 12, 0.5, one).unique(dim=0)) > 30  # rows differ
