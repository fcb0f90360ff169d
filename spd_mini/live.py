"""`spd_mini.live(d)`: the panel itself is in explorer/live.py.

Importing this module makes it an attribute of the package, where the function `live` is expected;
so the module can be called, and the name means the same before and after.
"""

import sys
from collections.abc import Sequence
from types import ModuleType

from torch import Tensor

from .decomposition import Decomposition
from .explorer.live import LivePanel, live


class _Callable(ModuleType):
    def __call__(self, d: Decomposition, x: Tensor | Sequence[float] | None = None) -> LivePanel:
        return live(d, x)


sys.modules[__name__].__class__ = _Callable
__all__ = ["live"]
