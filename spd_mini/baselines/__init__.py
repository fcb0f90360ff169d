"""What SPD is compared with: only as much of each method as the comparisons need."""

from . import apd

__all__ = ["apd"]
