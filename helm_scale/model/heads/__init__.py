"""Heads: features of atoms and pairs -> irreps of what is predicted."""
