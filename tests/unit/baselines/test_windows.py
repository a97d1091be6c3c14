"""Windows: where each position goes, and that it comes back."""

from __future__ import annotations

import torch

from fusionlib.methods.baselines import windows


def test_windows_and_positions_are_counted_row_by_row() -> None:
    x = torch.arange(24).view(1, 4, 6, 1)
    parts = windows.split(x, (2, 3))
    assert parts.shape == (1, 4, 6, 1)
    assert parts[0, :, :, 0].tolist() == [
        [0, 1, 2, 6, 7, 8],
        [3, 4, 5, 9, 10, 11],
        [12, 13, 14, 18, 19, 20],
        [15, 16, 17, 21, 22, 23],
    ]


def test_join_undoes_split() -> None:
    x = torch.rand(2, 6, 8, 3)
    assert torch.equal(windows.join(windows.split(x, (3, 4)), (3, 4), (6, 8)), x)


def test_padding_adds_zeros_at_the_end_until_the_windows_fit() -> None:
    x = torch.rand(1, 5, 6, 2) + 1
    padded = windows.pad_last(x, (3, 4))
    assert padded.shape == (1, 6, 8, 2)
    assert torch.equal(padded[:, :5, :6], x) and padded[:, 5:].abs().max() == 0 and padded[:, :, 6:].abs().max() == 0
    assert torch.equal(windows.pad_last(x, (5, 2)), x)
