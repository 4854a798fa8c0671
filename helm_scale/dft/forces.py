"""Analytic forces of several densities of one molecule at once; none of them needs to be
self-consistent.

    -F_A = d/dR_A E[P] at fixed P  -  Tr(W dS/dR_A),    W = 2 C_occ e_occ C_occ^T

With P and e of a converged Kohn-Sham matrix this is PySCF's gradient. With those of a predicted one
it is what the field
calls its forces: first order in the error of H, while E[P] is second order.

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

_SECOND = (
    (4, 5, 6),
    (5, 7, 8),
    (6, 8, 9),
)  # place of d2/dxdy among PySCF's ten derivatives of an orbital
_BLOCK_MB = (
    50  # orbitals on the grid at a time: fits caches, twice as fast as blocks of PySCF's size
)


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
    rows = [slice(first, last) for first, last in mol.aoslice_by_atom()[:, 2:]]
    core = gradient.hcore_generator(mol)
    found = np.stack(
        [np.einsum("xij,nij->nx", core(atom), p_nij) for atom in range(mol.natm)], axis=1
    )
    found -= _by_atom(gradient.get_ovlp(mol)[None], w_nij, rows)
    found += _two_electron(gradient, p_nij, rows) + _exchange_correlation(solver, p_nij, rows)
    if solver.do_nlc():
        found += _nonlocal(gradient, p_nij, rows)
    return found + gradient.grad_nuc()


def _by_atom(v_nxij: np.ndarray, p_nij: np.ndarray, rows: list[slice]) -> np.ndarray:
    """Contract derivatives of the left orbital with densities, atom by atom: [n, N, 3]."""
    return np.stack(
        [2 * np.einsum("nxij,nij->nx", v_nxij[:, :, own], p_nij[:, own]) for own in rows], axis=1
    )


def _two_electron(gradient: rks_grad.Gradients, p_nij: np.ndarray, rows: list[slice]) -> np.ndarray:
    """Coulomb and exact exchange, of range-separated hybrids too."""
    numint, xc = gradient.base._numint, gradient.base.xc

    def contracted(potential: np.ndarray) -> np.ndarray:
        found = _by_atom(
            np.asarray(potential).reshape(len(p_nij), 3, *p_nij.shape[1:]), p_nij, rows
        )
        fitted = getattr(
            potential, "aux", None
        )  # response of the fitting basis, for all pairs of densities
        return found if fitted is None else found + np.einsum("nnax->nax", fitted)

    if not numint.libxc.is_hybrid_xc(xc):
        return contracted(gradient.get_j(dm=p_nij))
    omega, long_range, short_range = numint.rsh_and_hybrid_coeff(xc)
    coulomb, exchange = gradient.get_jk(dm=p_nij)
    found = contracted(coulomb) - short_range / 2 * contracted(exchange)
    if omega:
        found -= (long_range - short_range) / 2 * contracted(gradient.get_k(dm=p_nij, omega=omega))
    return found


def _exchange_correlation(solver: RKS, p_nij: np.ndarray, rows: list[slice]) -> np.ndarray:
    """Semilocal exchange-correlation: [n, N, 3]."""
    mol, grids, numint = solver.mol, solver.grids, solver._numint
    kind = numint._xc_type(solver.xc)
    found = np.zeros((len(p_nij), 3, mol.nao))
    if kind == "HF":
        return np.zeros((len(p_nij), len(rows), 3))
    if grids.coords is None:
        grids.build(with_non0tab=True)
    for ao, _, weight, _ in numint.block_loop(
        mol, grids, mol.nao, 1 if kind == "LDA" else 2, _BLOCK_MB
    ):
        for number, density in enumerate(p_nij):
            found[number] += _on_block(numint, solver.xc, kind, ao, weight, density)
    return np.stack([found[:, :, own].sum(axis=2) for own in rows], axis=1)


def _on_block(
    numint: object, xc: str, kind: str, ao: np.ndarray, weight: np.ndarray, density: np.ndarray
) -> np.ndarray:
    """Contribution of one block of grid points, by left orbital: [3, nao]."""
    first, filled = range(1, 1 if kind == "LDA" else 4), _times(ao[0], density)
    rho = [
        np.einsum("gi,gi->g", ao[0], filled),
        *(2 * np.einsum("gi,gi->g", ao[y], filled) for y in first),
    ]
    slopes = [_times(ao[y], density) for y in first] if kind == "MGGA" else []
    if slopes:
        rho.append(
            sum(np.einsum("gi,gi->g", ao[y], slope) for y, slope in zip(first, slopes, strict=True))
            / 2
        )
    rho_array = np.array(rho if len(rho) > 1 else rho[0])
    vxc = numint.eval_xc_eff(xc, rho_array, deriv=1, xctype=kind)[1]  # type: ignore[attr-defined]
    v = weight * vxc
    field = sum((v[y][:, None] * ao[y] for y in first), v[0][:, None] * ao[0])
    inner = [_times(field, density), *_inner(kind, v, filled, slopes)]
    return np.stack([_contract(ao, x, inner) for x in range(3)])


def _inner(
    kind: str, v: np.ndarray, filled: np.ndarray, slopes: list[np.ndarray]
) -> Iterator[np.ndarray]:
    """What d2/dxdy of an orbital is multiplied with, for y = 1, 2, 3; absent for the LDA."""
    for y in range(1, 1 if kind == "LDA" else 4):
        yield v[y][:, None] * filled + (v[4][:, None] / 2 * slopes[y - 1] if slopes else 0)


def _contract(ao: np.ndarray, x: int, inner: list[np.ndarray]) -> np.ndarray:
    """-2 sum_g: an orbital moves against the derivative of its argument. [nao]."""
    parts = [
        (ao[1 + x], inner[0]),
        *((ao[place], values) for place, values in zip(_SECOND[x], inner[1:], strict=False)),
    ]
    return -2 * np.sum([np.einsum("gi,gi->i", one, other) for one, other in parts], axis=0)


def _times(ao: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Orbitals on the grid times a matrix, in the grid-fastest memory order that PySCF's orbitals
    have."""
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
    found = [
        rks_grad.get_nlc_vxc(solver._numint, solver.mol, grids, name, density)[1]
        for density in p_nij
    ]
    return _by_atom(np.array(found), p_nij, rows)
