"""The transformer with windows of one token: what a token is, and that tokens do not see each other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fusionlib.methods.baselines.token_transformer import SelfAttention, TokenTransformer


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_it_is_attention_over_windows_of_one_token() -> None:
    torch.manual_seed(0)
    attention, tokens = SelfAttention(16), noise(2, 5, 16)
    query, key, value = attention.qkv(tokens).view(10, 1, 3, 8, 2).permute(2, 0, 3, 1, 4)  # (windows, heads, 1, 2)
    expected = F.scaled_dot_product_attention(query, key, value).reshape(2, 5, 16)
    torch.testing.assert_close(attention(tokens), attention.proj(expected))


@torch.no_grad()
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_a_token_is_a_run_of_pixels_of_one_channel(memory: torch.memory_format) -> None:
    torch.manual_seed(0)
    net, feature = TokenTransformer(16, depth=2), noise(1, 16, 6, 10)
    changed = feature.clone()
    changed[0, 3, 2, 1] += 1  # element 21 of the 60 of channel 3, element 201 of all: in token 12, elements 192 to 207
    difference = net(changed.to(memory_format=memory)) - net(feature.to(memory_format=memory))
    touched = difference.reshape(-1).nonzero().flatten()
    assert touched.min() >= 192 and touched.max() <= 207 and len(touched) > 1
