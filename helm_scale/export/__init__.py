"""Bundles that leave the house."""
