"""Public Hamiltonian datasets into shards."""
