"""Distributed pretraining of backbones on Kohn-Sham Hamiltonians."""

__version__ = "0.1.0"
