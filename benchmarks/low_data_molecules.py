"""Write data_shards/small_molecules/molecules.xyz: small organic molecules, moved by heat.

Random molecules of 2 to 5 heavy atoms and at most 10 atoms (C, N, O, F, S, Cl, each bond single,
double or triple, sometimes one ring) in ordinary valences, no two alike, leaving out what falls
apart: bonds between hetero atoms, cumulenes, strained multiple bonds. RDKit embeds them; Metropolis
moves on the MMFF94 force field at 400 K displace them. Seeded.

The splits: train, validation and test share no molecule; conformers holds other geometries of
training molecules. The file is part of the repository, so that only who wants other molecules needs
this script, and RDKit (pip install rdkit).

    python benchmarks/low_data_molecules.py [--out FILE] [--quick]
"""

import functools
from pathlib import Path

import numpy as np
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem
from report import command_line

SPLITS = {"train": 600, "validation": 60, "test": 200}
CONFORMERS = 200  # of the first training molecules, once more
ELEMENTS = {"C": 0.50, "N": 0.16, "O": 0.15, "F": 0.08, "S": 0.07, "Cl": 0.04}
VALENCE = {"C": 4, "N": 3, "O": 2, "F": 1, "S": 2, "Cl": 1}
HEAVY_ATOMS = {2: 0.05, 3: 0.25, 4: 0.40, 5: 0.30}
MOST_ATOMS = 10
TEMPERATURE, STEP = 400.0, 0.06  # Kelvin, Angstrom
BOLTZMANN = 0.0019872  # kcal/mol/K
FORBIDDEN = [
    Chem.MolFromSmarts(pattern)
    for pattern in (
        "[#7,#8,#9,#16,#17]~[#7,#8,#9,#16,#17]",
        "*=*=*",
        "*#*=*",
        "[r3,r4]=,#*",
        "[r5]#*",
        "[O,S,N;!H0][C]=,#[C,N]",
    )
]


def draw(
    generator: np.random.Generator, *, size: int | None = None, most_atoms: int = MOST_ATOMS
) -> str | None:
    """Canonical SMILES of a random molecule, or None where the draw is no ordinary one.

    size: heavy atoms; None draws their number from HEAVY_ATOMS.
    """
    if size is None:
        size = int(generator.choice(list(HEAVY_ATOMS), p=list(HEAVY_ATOMS.values())))
    symbols = generator.choice(list(ELEMENTS), size, p=list(ELEMENTS.values()))
    free = [VALENCE[symbol] for symbol in symbols]
    mol = Chem.RWMol()
    for symbol in symbols:
        mol.AddAtom(Chem.Atom(str(symbol)))
    bonds = [(int(generator.integers(second)), second) for second in range(1, size)]
    if size > 2 and generator.uniform() < 0.3:
        first, second = sorted(generator.choice(size, 2, replace=False).tolist())
        bonds += [(first, second)] if (first, second) not in bonds else []
    for first, second in bonds:
        order = min(
            int(generator.choice([1, 2, 3], p=[0.55, 0.30, 0.15])), free[first], free[second]
        )
        if order < 1:
            return None
        mol.AddBond(first, second, Chem.BondType.values[order])
        free[first], free[second] = free[first] - order, free[second] - order
    if size + sum(free) > most_atoms:
        return None
    whole = mol.GetMol()
    return None if Chem.SanitizeMol(whole, catchErrors=True) else Chem.MolToSmiles(whole)


def different(generator: np.random.Generator, count: int) -> list[str]:
    """So many different SMILES, in random order: small molecules are drawn first."""
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        smiles = draw(generator)
        if smiles is not None and smiles not in drawn and embedded(smiles) is not None:
            drawn[smiles] = None
    return [str(smiles) for smiles in generator.permutation(list(drawn))]


@functools.cache
def embedded(smiles: str) -> Chem.Mol | None:
    """The molecule with hydrogens in a minimum of MMFF94; None if it has none or may break."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if any(mol.HasSubstructMatch(pattern) for pattern in FORBIDDEN):
        return None
    if AllChem.EmbedMolecule(mol, randomSeed=7) or not AllChem.MMFFHasAllMoleculeParams(mol):
        return None
    AllChem.MMFFOptimizeMolecule(mol, maxIters=1000)
    return mol


def heated(
    mol: Chem.Mol,
    generator: np.random.Generator,
    *,
    sweeps: int = 60,
    temperature: float = TEMPERATURE,
) -> np.ndarray:
    """Positions [N, 3] (Angstrom) after sweeps of Metropolis moves at a temperature (Kelvin).

    One atom is moved at a time.
    """
    field = AllChem.MMFFGetMoleculeForceField(mol, AllChem.MMFFGetMoleculeProperties(mol))
    x = mol.GetConformer().GetPositions()
    energy = field.CalcEnergy(x.ravel().tolist())
    for atom in list(range(len(x))) * sweeps:
        moved = x.copy()
        moved[atom] += STEP * generator.normal(size=3)
        proposed = field.CalcEnergy(moved.ravel().tolist())
        if generator.uniform() < np.exp(min((energy - proposed) / (BOLTZMANN * temperature), 0.0)):
            x, energy = moved, proposed
    return x - x.mean(axis=0)


def frames(quick: bool) -> list[str]:
    """All molecules as frames of extended XYZ with key, smiles and split."""
    shrink = 40 if quick else 1
    names = [name for name, count in SPLITS.items() for _ in range(-(-count // shrink))]
    again = -(-CONFORMERS // shrink)
    generator = np.random.Generator(np.random.PCG64(7))
    drawn = different(generator, len(names))
    jobs = [*zip(drawn, names, strict=True), *((smiles, "conformers") for smiles in drawn[:again])]
    texts = []
    for number, (smiles, split) in enumerate(jobs):
        mol = embedded(smiles)
        assert mol is not None
        x = heated(mol, generator)
        lines = [
            f"{atom.GetSymbol()} {' '.join(f'{value:.4f}' for value in row)}"
            for atom, row in zip(mol.GetAtoms(), x, strict=True)
        ]
        comment = (
            f"Properties=species:S:1:pos:R:3 key=small-{number:04d} split={split}"
            f' smiles="{smiles}" pbc="F F F"'
        )
        texts.append("\n".join([str(len(lines)), comment, *lines, ""]))
    return texts


def main() -> None:
    """Write the file."""
    parser = command_line(__doc__, quick="a fortieth")
    parser.add_argument(
        "--out", type=Path, default=Path("data_shards/small_molecules/molecules.xyz")
    )
    arguments = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    texts = frames(arguments.quick)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("".join(texts))
    print(f"{arguments.out}: {len(texts)} molecules")


if __name__ == "__main__":
    main()
