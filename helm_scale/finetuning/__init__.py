"""Energies and forces from few labels, on a pretrained backbone."""
