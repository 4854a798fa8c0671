"""Losses, metrics and per-element references."""
