"""How a picture may be fitted to a frame of another shape; apart from the fitting, which needs numpy."""

from typing import Literal

Fit = Literal["cover", "contain", "stretch"]
