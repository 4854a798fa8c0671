"""Computes analytic forces of several densities of one molecule, self-consistent or not.

    -F_A = d/dR_A E[P] at fixed P  -  Tr(W dS/dR_A),    W = 2 C_occ e_occ C_occ^T

With P and e of a converged Kohn-Sham matrix this is PySCF's gradient. With those of a predicted one
it is what the field calls its forces: first order in the error of H, while E[P] is second order.

The derivative integrals and the orbitals on the grid do not depend on the density: they are made
once for all of them. The exchange-correlation part is contracted with P on the grid, point by
point, without the three nao^2 matrices of PySCF's own gradient. As there, the grid does not
respond.

Axes: n densities, N atoms, G grid points, i atomic orbitals.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from pyscf.dft.rks import RKS
from pyscf.grad import rks as rks_grad

# Place of d2/dxdy among PySCF's ten derivatives of an orbital: 1, x, y, z, xx, xy, xz, yy, yz, zz.
_SECOND = ((4, 5, 6), (5, 7, 8), (6, 8, 9))
# Orbitals on the grid at a time: fits caches, twice as fast as blocks of PySCF's size.
_BLOCK_MB = 50


def gradients(
    solver: RKS, densities: Sequence[np.ndarray], weighted: Sequence[np.ndarray]
) -> np.ndarray:
    """Energy gradients.

    Args:
        solver: of the method; its grid and density-fitting basis are used.
        densities: n matrices P [nao, nao]. weighted: n energy-weighted matrices W [nao, nao],
            Hartree. PySCF order.
    Returns:
        [n, N, 3], Hartree/bohr.
    """
    mol, gradient = solver.mol, solver.nuc_grad_method()
    p_nij, w_nij = np.array(densities), np.array(weighted)
    # aoslice_by_atom: (first shell, last shell, first AO, last AO) of every atom
    rows = [slice(start, stop) for start, stop in mol.aoslice_by_atom()[:, 2:]]
    core = gradient.hcore_generator(mol)  # core(atom) [3, i, i], ECPs included
    total = np.stack(
        [np.einsum("xij,nij->nx", core(atom), p_nij) for atom in range(mol.natm)], axis=1
    )
    # PySCF's get_ovlp is the derivative of S by the nucleus of the left orbital, sign included.
    total -= _by_atom(gradient.get_ovlp(mol)[None], w_nij, rows)
    total += _two_electron(gradient, p_nij, rows) + _exchange_correlation(solver, p_nij, rows)
    if solver.do_nlc():
        total += _nonlocal(gradient, p_nij, rows)
    return total + gradient.grad_nuc()


def _by_atom(v_nxij: np.ndarray, p_nij: np.ndarray, rows: list[slice]) -> np.ndarray:
    """Contract derivatives of the left orbital with densities, atom by atom: [n, N, 3]."""
    # Twice: the right orbital's derivative gives the same number, as P and W are symmetric.
    return np.stack(
        [
            2 * np.einsum("nxij,nij->nx", v_nxij[:, :, orbitals], p_nij[:, orbitals])
            for orbitals in rows
        ],
        axis=1,
    )


def _two_electron(gradient: rks_grad.Gradients, p_nij: np.ndarray, rows: list[slice]) -> np.ndarray:
    """Coulomb and exact exchange, also of range-separated hybrids: [n, N, 3]."""
    numint, xc = gradient.base._numint, gradient.base.xc

    def contracted(potential: np.ndarray) -> np.ndarray:
        # PySCF drops the axis of densities where there is one only.
        orbital = _by_atom(
            np.asarray(potential).reshape(len(p_nij), 3, *p_nij.shape[1:]), p_nij, rows
        )
        # Density fitting: response of the fitting basis, for all pairs of densities.
        fitted = getattr(potential, "aux", None)
        return orbital if fitted is None else orbital + np.einsum("nnax->nax", fitted)

    if not numint.libxc.is_hybrid_xc(xc):
        return contracted(gradient.get_j(dm=p_nij))
    omega, long_range, short_range = numint.rsh_and_hybrid_coeff(xc)
    coulomb, exchange = gradient.get_jk(dm=p_nij)
    # The share of short-range exchange at all distances, then what long range has beyond it.
    total = contracted(coulomb) - short_range / 2 * contracted(exchange)
    if omega:
        total -= (long_range - short_range) / 2 * contracted(gradient.get_k(dm=p_nij, omega=omega))
    return total


def _exchange_correlation(solver: RKS, p_nij: np.ndarray, rows: list[slice]) -> np.ndarray:
    """Semilocal exchange-correlation: [n, N, 3]."""
    mol, grids, numint = solver.mol, solver.grids, solver._numint
    xctype = numint._xc_type(solver.xc)  # "LDA", "GGA", "MGGA", or "HF" where there is none
    by_orbital = np.zeros((len(p_nij), 3, mol.nao))
    if xctype == "HF":
        return np.zeros((len(p_nij), len(rows), 3))
    if grids.coords is None:
        grids.build(with_non0tab=True)
    for ao, _, weight, _ in numint.block_loop(
        mol, grids, mol.nao, 1 if xctype == "LDA" else 2, _BLOCK_MB
    ):
        for number, density in enumerate(p_nij):
            by_orbital[number] += _on_block(
                numint, solver.xc, xctype=xctype, ao=ao, weight=weight, density=density
            )
    return np.stack([by_orbital[:, :, orbitals].sum(axis=2) for orbitals in rows], axis=1)


def _on_block(
    numint: object, xc: str, *, xctype: str, ao: np.ndarray, weight: np.ndarray, density: np.ndarray
) -> np.ndarray:
    """Contribution of one block of grid points, by left orbital: [3, nao]."""
    axes, filled = range(1, 1 if xctype == "LDA" else 4), _times(ao[0], density)
    # PySCF's rows: density, its gradient, and for meta-GGAs tau = sum_occ |grad psi|^2 / 2.
    rho = [
        np.einsum("gi,gi->g", ao[0], filled),
        *(2 * np.einsum("gi,gi->g", ao[y], filled) for y in axes),
    ]
    slopes = [_times(ao[y], density) for y in axes] if xctype == "MGGA" else []
    if slopes:
        rho.append(
            sum(np.einsum("gi,gi->g", ao[y], slope) for y, slope in zip(axes, slopes, strict=True))
            / 2
        )
    # eval_xc_eff reads a one-dimensional array as the density of an LDA.
    rho_array = np.array(rho if len(rho) > 1 else rho[0])
    vxc = numint.eval_xc_eff(xc, rho_array, deriv=1, xctype=xctype)[1]  # type: ignore[attr-defined]
    v = weight * vxc
    field = sum((v[y][:, None] * ao[y] for y in axes), v[0][:, None] * ao[0])
    inner = [_times(field, density), *_inner(xctype, v, filled, slopes)]
    return np.stack([_contract(ao, x, inner) for x in range(3)])


def _inner(
    xctype: str, v: np.ndarray, filled: np.ndarray, slopes: list[np.ndarray]
) -> Iterator[np.ndarray]:
    """Factors of the second derivatives d2/dxdy of an orbital, y = 1, 2, 3; none for an LDA."""
    for y in range(1, 1 if xctype == "LDA" else 4):
        yield v[y][:, None] * filled + (v[4][:, None] / 2 * slopes[y - 1] if slopes else 0)


def _contract(ao: np.ndarray, x: int, inner: list[np.ndarray]) -> np.ndarray:
    """Sum orbital derivatives times their factors over the grid points: [nao]."""
    terms = [
        (ao[1 + x], inner[0]),
        *((ao[place], values) for place, values in zip(_SECOND[x], inner[1:], strict=False)),
    ]
    # Minus: moving the nucleus by +x is moving the orbital's argument by -x. Twice: both orbitals.
    return -2 * np.sum(
        [np.einsum("gi,gi->i", derivative, factor) for derivative, factor in terms], axis=0
    )


def _times(ao: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Multiply orbitals on the grid [G, i] with a matrix [i, i]."""
    # Transposed twice to keep the grid the fastest axis in memory, as in PySCF's orbitals: sums
    # over points are then contiguous.
    return (density.T @ ao.T).T


def _nonlocal(gradient: rks_grad.Gradients, p_nij: np.ndarray, rows: list[slice]) -> np.ndarray:
    """Non-local correlation (VV10), by PySCF, one density after another."""
    solver = gradient.base
    grids, name = (
        solver.nlcgrids,
        solver.xc if solver._numint.libxc.is_nlc(solver.xc) else solver.nlc,
    )
    if grids.coords is None:
        grids.build(with_non0tab=True)
    derivatives = [
        rks_grad.get_nlc_vxc(solver._numint, solver.mol, grids, name, density)[1]
        for density in p_nij
    ]
    return _by_atom(np.array(derivatives), p_nij, rows)
