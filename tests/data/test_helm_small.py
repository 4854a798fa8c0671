"""The molecules that helm_small learns from and is tested on are different ones."""

from pathlib import Path

from helm_scale.data.format.xyz import read_xyz

FOLDER = Path(__file__).parents[2] / "data_shards" / "helm_small"


def compositions(path: Path) -> list[tuple[str, str]]:
    """(split, sorted atomic numbers) of every geometry of a file."""
    molecules, splits = read_xyz(path)
    return [
        (split, str(sorted(molecule.atomic_numbers.tolist())))
        for molecule, split in zip(molecules, splits, strict=True)
    ]


def test_no_composition_of_the_tests_is_in_training() -> None:
    parts = [row for path in sorted(FOLDER.glob("part-*.xyz.gz")) for row in compositions(path)]
    seen = {split: {kind for name, kind in parts if name == split} for split in dict(parts)}
    assert set(seen) == {"train", "validation"}
    assert seen["train"].isdisjoint(seen["validation"])
    for name in ("test", "larger"):
        unseen = compositions(FOLDER / f"{name}.xyz.gz")
        assert {split for split, _ in unseen} == {"test"}
        assert not {kind for _, kind in unseen} & (seen["train"] | seen["validation"])
