"""The one table of tolerances, each with its reason, so that no limit of a test drifts."""

import torch

# Largest absolute error of quantities of order one, by dtype.
ALGEBRA = {
    # rotations and couplings up to degree 8: some 1e3 sums of products, each 1e-16
    torch.float64: 1e-12,
    torch.float32: 2e-5,  # the same sums, each 6e-8, with table entries up to 1e2
}

# Largest error of a whole model's output relative to its largest entry, by dtype.
MODEL = {
    torch.float64: 1e-10,  # a few layers of sums over edges amplify ALGEBRA a hundredfold
    torch.float32: 1e-5,  # the same in float32, where sums over edges average the errors out
}

# Relative difference of losses and gradients between chunked and whole evaluation, float64: sums in
# another order.
CHUNKS = 1e-12

# Hartree (dimensionless for overlaps): PySCF's own noise.
ONE_ELECTRON_INTEGRALS = (
    1e-10  # libcint's and the ECP's analytic integrals in two orientations; entries up to 500
)
CONVERGED_FOCK = 1e-7  # Fock matrices of two SCF runs, conv_tol 1e-12
TRUE_H_ENERGY = 1e-8  # converged H -> orbitals -> energy_tot, without truncation

# Shards: float32 off-site blocks plus remainder, Hartree.
SHARD_MEAN = 1e-8
SHARD_MAX = 1e-6

# Relative difference of losses between engines: float32 sums in another order, over ten optimiser
# steps.
ENGINE_PARITY = 1e-5

# The same with SOAP in float32: components of the size of rounding errors get a full step, which
# moves weights (by 10 %) more than losses.
SOAP_FLOAT32_LOSS = 2e-3

# The same with weights and features of 8 bits in the passes: 0.4 % each, which sums over elements
# average out in part.
BFLOAT16_LOSS = 0.05

# Planned against measured bytes of a step: what kernels and small blocks on the heap take is not
# planned.
MEMORY = 0.2
