"""Rotations and couplings of real spherical harmonics; polar axis z, m = -l..l."""
