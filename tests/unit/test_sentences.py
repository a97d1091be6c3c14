"""Sentences say what the numbers say, each metric in its own direction."""

from __future__ import annotations

import pytest

from fusionlib import losses, registration
from fusionlib.notebook import sentences
from fusionlib.support.files import InputError


def test_lists_read_as_in_a_text():
    assert [sentences.listed("abc"[:count]) for count in range(4)] == ["", "a", "a and b", "a, b and c"]


def test_better_and_worse_follow_the_direction_of_each_metric():
    mine, other = {"Q_CC": 0.5, "Q_CV": 753.4, "EPE": 2.0}, {"Q_CC": 0.6, "Q_CV": 851.0, "EPE": 2.0}
    said = sentences.better_and_worse(mine, other, mine, "`average`")
    better, worse = "better than `average` in Q_CV (753 against 851)", "worse in Q_CC (0.5 against 0.6)"
    assert said == f"{better}, and {worse}, and equal in EPE (2 against 2)"
    swapped = sentences.better_and_worse(other, mine, ["Q_CV", "Q_CC"], "Ours")
    assert swapped == "better than Ours in Q_CC (0.6 against 0.5), and worse in Q_CV (851 against 753)"
    near = sentences.better_and_worse({"Q_SSIM": 1.2414}, {"Q_SSIM": 1.2422}, ["Q_SSIM"], "it")
    assert near == "worse than it in Q_SSIM (1.241 against 1.242)"
    assert sentences.better_and_worse(mine, other, ["Q_CC"], "it") == "worse than it in Q_CC (0.5 against 0.6)"


def test_a_metric_without_a_direction_is_refused():
    with pytest.raises(InputError, match="seconds of a day"):
        sentences.better_and_worse({"seconds of a day": 1}, {"seconds of a day": 2}, ["seconds of a day"], "it")


def test_code_is_shown_as_it_is_without_docstrings():
    shown = sentences.source(losses.consistency_loss, registration.CSEB).data
    assert shown.count("```python") == 2 and '"""' not in shown
    assert "    return (common_ir - common_vi).abs().mean()" in shown and "# Eq. (3)" in shown
    assert "class CSEB(nn.Module):" in shown and "    def forward(self" in shown
