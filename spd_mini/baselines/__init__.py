"""What SPD is compared with: only as much of each method as the comparisons need."""

from . import apd, transcoder

__all__ = ["apd", "transcoder"]
