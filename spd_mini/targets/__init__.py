"""Toy models whose mechanisms are known: module, data, training and presets, one file each."""
