"""The network: node trunk, pair tower, heads."""
