"""Public sets of Hamiltonians, and a user's own matrices, into shards."""
