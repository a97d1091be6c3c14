"""nbval speaks to its kernels through files, not ports: of two that start at once, one can take the other's port."""

import nbval.kernel

from fusionlib.reproduce.execute import without_ports


class WithoutPorts(nbval.kernel.KernelManager):
    def __init__(self, **settings: object) -> None:
        super().__init__(**without_ports() | settings)


nbval.kernel.KernelManager = WithoutPorts
