"""Toy models whose mechanisms are known: module, data, training and presets, one file each."""

from . import tms

EXPERIMENTS = {
    preset.name: preset for preset in (tms.TMS_5_2, tms.TMS_5_2_ID, tms.TMS_40_10, tms.TMS_40_10_ID)
}
"""Presets by the name that the command line knows."""
