"""The diagram shows the network that it is given: its channels, its sizes, and every block."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from fusionlib.detection import Detector
from fusionlib.network import AS_IN_THE_PAPER, FusionNetwork, NetworkConfig
from fusionlib.notebook import architecture


@pytest.mark.parametrize("config", [NetworkConfig(channels=8, msrb_widths=(12, 20)), AS_IN_THE_PAPER])
def test_the_diagram_holds_the_numbers_of_its_network(config: NetworkConfig) -> None:
    network = FusionNetwork(config)
    was = {name: value.clone() for name, value in network.state_dict().items()}
    figure = architecture.diagram(network, Detector(network.fused_channels), side=64)
    text = "\n".join(each.get_text() for axis in figure.axes for each in axis.texts)
    c = config.channels
    assert all(name in text for name in ("IR-CFE", "VI-SFE", "IR-CSEB", "MSRB", "warp", "Eq. 7", "Tanh", "YOLOv5 n"))
    assert f"{4 * c} × 64 × 64" in text and f"{4 * c}→{c}→{c}→1 channels" in text and "$\\phi$\n2 × 64 × 64" in text
    if config.msrb == "pyramid":
        assert "20 × 8 × 8" in text and "field 2 × 16 × 16" in text and "81 shifts" in text
    else:
        assert "24→48→96→128" in text
    assert all((value == was[name]).all() for name, value in network.state_dict().items()) and network.training
    plt.close(figure)
