"""Write data_shards/helm_small/*.xyz.gz: the geometries that helm_small learns from and meets.

Random molecules of 2 to 9 heavy atoms (H, C, N, O, F, S, Cl), drawn as for the low-data protocol
(low_data_molecules.py) and moved by heat at 300 to 500 K. No graph and no composition stands in
more than one of train, validation and test. Molecules of up to 4 heavy atoms come in three
geometries each, which are cheap to label; larger ones in one.

    part-00.xyz.gz, ...  train and validation, shuffled: any first parts are a fair sample of all
    test.xyz.gz          unseen molecules of the same sizes, shuffled
    larger.xyz.gz        known molecules of 10, 15 and 20 heavy atoms, more than any in training

The files are part of the repository, so that only who wants other molecules needs this script, and
RDKit (pip install rdkit).

    python benchmarks/helm_small_molecules.py [--out FOLDER] [--quick]
"""

import gzip
from pathlib import Path

import low_data_molecules as small
import numpy as np
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem, rdMolDescriptors
from report import command_line

MOLECULES = {2: 25, 3: 130, 4: 600, 5: 500, 6: 200, 7: 70, 8: 50, 9: 25}  # by heavy atoms
GEOMETRIES = {2: 3, 3: 3, 4: 3}  # of one molecule, 1 if not named
PART = 100  # geometries in a part
TEMPERATURES = 300.0, 500.0  # Kelvin, between which each geometry draws its own
SHARES = {"test": 0.05, "validation": 0.05}  # of the compositions
LARGER = (
    "CC(=O)Nc1ccccc1",
    "CCCCOC(=O)CCC",
    "CSCCC(N)C(=O)OC",
    "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "O=C(NC)CCC(=O)NCCSCCF",
    "CC(=O)NC(C)C(=O)NC(C)C(=O)NC(C)C(=O)NC",
)


def different(generator: np.random.Generator, size: int, count: int) -> list[str]:
    """At most so many different SMILES of one size; small sizes may have fewer."""
    drawn: dict[str, None] = {}
    for _ in range(400 * count):
        smiles = small.draw(generator, size=size, most_atoms=3 * size + 2)
        if smiles and smiles not in drawn and small.embedded(smiles) is not None:
            drawn[smiles] = None
        if len(drawn) == count:
            break
    return list(drawn)


def frame(mol: Chem.Mol, key: str, split: str, generator: np.random.Generator) -> str:
    """One heated geometry as a frame of extended XYZ."""
    temperature = generator.uniform(*TEMPERATURES)
    positions = small.heated(mol, generator, temperature=temperature)
    lines = [
        f"{atom.GetSymbol()} {' '.join(f'{value:.4f}' for value in row)}"
        for atom, row in zip(mol.GetAtoms(), positions, strict=True)
    ]
    smiles = Chem.MolToSmiles(Chem.RemoveHs(mol))
    comment = (
        f'Properties=species:S:1:pos:R:3 key={key} split={split} smiles="{smiles}" pbc="F F F"'
    )
    return "\n".join([str(len(lines)), comment, *lines, ""])


def splits(smiles: list[str], generator: np.random.Generator) -> dict[str, str]:
    """The split of every molecule; all isomers go together."""
    formulas = {text: rdMolDescriptors.CalcMolFormula(Chem.MolFromSmiles(text)) for text in smiles}
    known = generator.permutation(sorted(set(formulas.values()))).tolist()
    names, first = dict.fromkeys(known, "train"), 0
    for name, share in SHARES.items():
        count = max(round(share * len(known)), 1)
        names.update(dict.fromkeys(known[first : first + count], name))
        first += count
    return {text: names[formula] for text, formula in formulas.items()}


def trained_and_tested(quick: bool) -> tuple[list[str], list[str]]:
    """Frames of train and validation, and of test, both shuffled."""
    generator = np.random.Generator(np.random.PCG64(11))
    shrink = 40 if quick else 1
    sizes = {size: different(generator, size, -(-n // shrink)) for size, n in MOLECULES.items()}
    split_of = splits([text for texts in sizes.values() for text in texts], generator)
    jobs = [
        (text, copy)
        for size, texts in sizes.items()
        for text in texts
        for copy in range(GEOMETRIES.get(size, 1) if split_of[text] == "train" else 1)
    ]
    shuffled = [jobs[number] for number in generator.permutation(len(jobs))]
    trained, tested = [], []
    for number, (text, _) in enumerate(shuffled):
        mol = small.embedded(text)
        assert mol is not None
        made = frame(mol, f"helm-{number:04d}", split_of[text], generator)
        (tested if split_of[text] == "test" else trained).append(made)
    return trained, tested


def larger() -> list[str]:
    """Frames of the larger molecules, smallest first."""
    generator = np.random.Generator(np.random.PCG64(12))
    frames = []
    for number, smiles in enumerate(LARGER):
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        AllChem.EmbedMolecule(mol, randomSeed=7)
        AllChem.MMFFOptimizeMolecule(mol, maxIters=1000)
        frames.append(frame(mol, f"larger-{number}", "test", generator))
    return frames


def write(path: Path, frames: list[str]) -> None:
    """Write frames, compressed, without a time, so that the same frames give the same bytes."""
    path.write_bytes(gzip.compress("".join(frames).encode(), mtime=0))


def main() -> None:
    """Write the files."""
    parser = command_line(__doc__, quick="a fortieth")
    parser.add_argument("--out", type=Path, default=Path("data_shards/helm_small"))
    arguments = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    trained, tested = trained_and_tested(arguments.quick)
    arguments.out.mkdir(parents=True, exist_ok=True)
    parts = [trained[first : first + PART] for first in range(0, len(trained), PART)]
    for number, part in enumerate(parts):
        write(arguments.out / f"part-{number:02d}.xyz.gz", part)
    write(arguments.out / "test.xyz.gz", tested)
    write(arguments.out / "larger.xyz.gz", larger())
    print(f"{arguments.out}: {len(trained)} in {len(parts)} parts, {len(tested)} for test")


if __name__ == "__main__":
    main()
