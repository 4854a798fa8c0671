"""Write molecules.xyz: the quickstart molecules, their geometries and splits.

Light molecules come from ASE's G2 geometries. The others are built from bond lengths (Angstrom) and
angles (degrees) near experiment, by symmetry. Every atom is then moved by a seeded Gaussian step of
0.03 Angstrom per coordinate, so that forces differ from zero and no molecule is symmetric.

Run from the repository root: python data_shards/quickstart/make_xyz.py
"""

from pathlib import Path

import ase
import ase.build
import ase.io
import numpy as np

RATTLE = 0.03  # Angstrom
SEED = 20

G2 = {
    "train": "H2O CH4 NH3 C2H6 C2H4 C2H2 CH3OH H3CNH2 CH3Cl CH3SH CO2 HCN N2O N2H4 H2O2 Cl2 SO2 BF3"
    " PF3 PH3 SiH4 HCF3 HOCl LiF NaCl",
    "validation": "CH3CHO CH3CN H2CO H2CF2",
    "test": "CH3CH2OH CH2NHCH2 HCOOH H2CCl2",
}


def linear(symbols: str, *bonds: float) -> ase.Atoms:
    """Atoms on a line."""
    z = np.concatenate([[0.0], np.cumsum(bonds)])
    return ase.Atoms(symbols, np.stack([0 * z, 0 * z, z], axis=1))


def central(center: str, arms: list[str], bonds: list[float], polar: float) -> ase.Atoms:
    """A centre with arms spread evenly around the z axis; polar: their angle to it, degrees."""
    theta, phi = np.radians(polar), 2 * np.pi * np.arange(len(arms)) / len(arms)
    x, y = np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi)
    return star(center, arms, bonds, np.stack([x, y, np.full(len(arms), np.cos(theta))], axis=1))


def star(center: str, arms: list[str], bonds: list[float], directions: np.ndarray) -> ase.Atoms:
    """A centre at the origin and arms along unit vectors [n, 3]."""
    ends = directions * np.array(bonds)[:, None]
    return ase.Atoms([center, *arms], np.concatenate([np.zeros((1, 3)), ends]))


def bent(center: str, arm: str, bond: float, angle: float) -> ase.Atoms:
    """AB2 with the angle B-A-B in degrees."""
    return central(center, [arm] * 2, [bond] * 2, angle / 2)


def pyramid(center: str, arm: str, bond: float, angle: float) -> ase.Atoms:
    """AB3 with the angles B-A-B in degrees."""
    polar = np.degrees(np.arcsin(np.sin(np.radians(angle / 2)) / np.sin(np.radians(60))))
    return central(center, [arm] * 3, [bond] * 3, polar)


def tetrahedron(center: str, arms: list[str], bonds: list[float]) -> ase.Atoms:
    """AB4 with tetrahedral angles; arms and bonds one by one."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    return star(center, arms, bonds, corners)


def bonded(carbon_chain: ase.Atoms, replaced: int, symbol: str, bond: float) -> ase.Atoms:
    """Put another element in a hydrogen's place, at its own distance (Angstrom) from the carbon."""
    atoms = carbon_chain.copy()
    heavy = [i for i in range(len(atoms)) if i != replaced and atoms.numbers[i] > 1]
    anchor = min(heavy, key=lambda i: atoms.get_distance(i, replaced))
    atoms.numbers[replaced] = ase.Atoms(symbol).numbers[0]
    atoms.set_distance(anchor, replaced, bond, fix=0)
    return atoms


def by_hand() -> dict[str, dict[str, tuple[ase.Atoms, int]]]:
    """{split: {key: (geometry, charge)}} of heavier molecules and ions."""
    methane, ethyne = ase.build.molecule("CH4"), ase.build.molecule("C2H2")
    train = {
        "HeH+": (linear("HeH", 0.774), 1), "NeH+": (linear("NeH", 0.991), 1),
        "ArH+": (linear("ArH", 1.280), 1), "NH4+": (tetrahedron("N", ["H"] * 4, [1.02] * 4), 1),
        "OH-": (linear("OH", 0.964), -1), "CN-": (linear("CN", 1.177), -1),
        "BeH2": (linear("HBeH", 1.326, 1.326), 0), "MgH2": (linear("HMgH", 1.703, 1.703), 0),
        "AlH3": (pyramid("Al", "H", 1.584, 120.0), 0), "KF": (linear("KF", 2.171), 0),
        "CaF2": (bent("Ca", "F", 2.00, 150.0), 0), "GaCl": (linear("GaCl", 2.202), 0),
        "GeH4": (tetrahedron("Ge", ["H"] * 4, [1.525] * 4), 0),
        "GeF2": (bent("Ge", "F", 1.732, 97.0), 0), "AsH3": (pyramid("As", "H", 1.519, 92.0), 0),
        "H2Se": (bent("Se", "H", 1.460, 91.0), 0), "HBr": (linear("HBr", 1.414), 0),
        "CH3Br": (bonded(methane, 1, "Br", 1.934), 0), "KrF2": (linear("FKrF", 1.889, 1.889), 0),
        "RbF": (linear("RbF", 2.270), 0), "SrF2": (bent("Sr", "F", 2.14, 130.0), 0),
        "YF": (linear("YF", 1.926), 0), "ZrO2": (bent("Zr", "O", 1.771, 108.0), 0),
        "NbO2+": (bent("Nb", "O", 1.690, 104.0), 1), "MoO3": (pyramid("Mo", "O", 1.711, 112.0), 0),
        "TcO3+": (pyramid("Tc", "O", 1.680, 112.0), 1),
        "RuO4": (tetrahedron("Ru", ["O"] * 4, [1.705] * 4), 0), "RhB": (linear("RhB", 1.691), 0),
        "PdCO": (linear("PdCO", 1.850, 1.140), 0), "AgH": (linear("AgH", 1.618), 0),
        "CdH2": (linear("HCdH", 1.683, 1.683), 0), "InCl": (linear("InCl", 2.401), 0),
        "SnH4": (tetrahedron("Sn", ["H"] * 4, [1.711] * 4), 0),
        "SnCl2": (bent("Sn", "Cl", 2.347, 99.0), 0), "SbH3": (pyramid("Sb", "H", 1.704, 91.6), 0),
        "H2Te": (bent("Te", "H", 1.658, 90.3), 0), "HI": (linear("HI", 1.609), 0),
        "CH3I": (bonded(methane, 1, "I", 2.132), 0), "XeF2": (linear("FXeF", 1.977, 1.977), 0),
        "CsF": (linear("CsF", 2.345), 0), "BaO": (linear("BaO", 1.940), 0),
        "HfO2": (bent("Hf", "O", 1.776, 107.0), 0), "TaN": (linear("TaN", 1.683), 0),
        "WO3": (pyramid("W", "O", 1.710, 112.0), 0), "ReO3+": (pyramid("Re", "O", 1.690, 112.0), 1),
        "OsO4": (tetrahedron("Os", ["O"] * 4, [1.711] * 4), 0), "IrN": (linear("IrN", 1.609), 0),
        "PtCO": (linear("PtCO", 1.760, 1.144), 0), "AuH": (linear("AuH", 1.524), 0),
        "HgH2": (linear("HHgH", 1.633, 1.633), 0), "HgCl2": (linear("ClHgCl", 2.252, 2.252), 0),
        "TlCl": (linear("TlCl", 2.485), 0), "PbO": (linear("PbO", 1.922), 0),
        "PbH4": (tetrahedron("Pb", ["H"] * 4, [1.754] * 4), 0),
        "BiH3": (pyramid("Bi", "H", 1.776, 90.5), 0), "BiF3": (pyramid("Bi", "F", 1.987, 96.0), 0),
    }  # fmt: skip
    validation = {
        "H3O+": (pyramid("O", "H", 0.980, 112.0), 1),
        "SnH3Cl": (tetrahedron("Sn", ["Cl", "H", "H", "H"], [2.327, 1.71, 1.71, 1.71]), 0),
        "HCCBr": (bonded(ethyne, 2, "Br", 1.792), 0), "HHgCl": (linear("HHgCl", 1.60, 2.28), 0),
    }  # fmt: skip
    test = {
        "HCO+": (linear("HCO", 1.097, 1.105), 1), "HCCI": (bonded(ethyne, 2, "I", 1.994), 0),
        "GeH3F": (tetrahedron("Ge", ["F", "H", "H", "H"], [1.735, 1.52, 1.52, 1.52]), 0),
        "BiH2F": (central("Bi", ["F", "H", "H"], [2.05, 1.78, 1.78], 56.0), 0),
    }  # fmt: skip
    return {"train": train, "validation": validation, "test": test}


def molecules() -> list[ase.Atoms]:
    """Every molecule, displaced, with key, charge, multiplicity and split in `info`."""
    generator = np.random.Generator(np.random.PCG64(SEED))
    frames = []
    for split, ours in by_hand().items():
        light = {key: (ase.build.molecule(key), 0) for key in G2[split].split()}
        for key, (atoms, charge) in (light | ours).items():
            displaced = atoms.positions + generator.normal(scale=RATTLE, size=atoms.positions.shape)
            info = {"key": key, "charge": charge, "multiplicity": 1, "split": split}
            frames.append(ase.Atoms(atoms.numbers, displaced.round(6), info=info))
    return frames


if __name__ == "__main__":
    ase.io.write(Path(__file__).parent / "molecules.xyz", molecules(), format="extxyz")
