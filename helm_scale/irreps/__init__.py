"""Rotations, SO(2) orders and Clebsch-Gordan coupling of real spherical harmonics (polar axis z, m
= -l..l)."""
