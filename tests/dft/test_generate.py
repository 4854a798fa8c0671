"""Labels: the right quantities; nothing is lost when killed, nothing wrong is kept."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from helm_scale import commands
from helm_scale.config import GenerateConfig
from helm_scale.data.format import codec
from helm_scale.data.format.manifest import Manifest
from helm_scale.data.format.shards import ShardReader, verify
from helm_scale.dft.energies import EnergyFunctional
from helm_scale.dft.generate import LabelJob, label, label_or_reason
from helm_scale.dft.molecule import build_mol, kohn_sham
from helm_scale.types import Method, Molecule
from helm_scale.units import E_ANGSTROM_IN_DEBYE

ROOT = Path(__file__).parents[2]
SVP = Method(
    xc="pbe",
    basis="def2-svp",
    ecp="def2",
    grid_level=4,
    auxbasis=None,
    conv_tol=1e-11,
    baseline="minao",
    program="PySCF",
)
HF = Molecule("hf", np.array([9, 1]), np.array([[0.0, 0.1, 0.0], [0.3, 0.2, 1.0]]))
GRID_FORCE = 2e-4  # Hartree/Angstrom: the analytic forces leave out the response of the grid
FRAME = """3
Properties=species:S:1:pos:R:3 key={} split={}
O 0.0 0.0 0.1
H 0.76 0.0 0.{}
H -0.74 0.0 0.58
"""

Make = Callable[..., GenerateConfig]


@pytest.fixture
def config(tmp_path: Path) -> Make:
    """Settings that label quickly; the XYZ file is made from text."""

    def make(text: str, **changes: object) -> GenerateConfig:
        (tmp_path / "in.xyz").write_text(text)
        cheap = {
            "basis": "def2-svp",
            "grid_level": 0,
            "conv_tol": 1e-9,
            "baseline": "minao",
            "processes": 1,
            "molecules_per_shard": 2,
        }
        return GenerateConfig.model_validate(
            cheap | {"xyz": str(tmp_path / "in.xyz"), "out": str(tmp_path / "out")} | changes
        )

    return make


def frames(count: int) -> str:
    """XYZ of distinct waters; the last is the test split."""
    return "".join(
        FRAME.format(f"water-{i}", "test" if i == count - 1 else "train", 60 + i)
        for i in range(count)
    )


def processes_of_session(session: int) -> bool:
    """Whether any process of a session lives."""
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def command(config: GenerateConfig) -> list[str]:
    """The launcher's command line."""
    options = [
        f"--{name}={list(value) if isinstance(value, tuple) else value}".replace("'", "")
        for name, value in config.model_dump().items()
        if value is not None
    ]
    return [sys.executable, "launch/shards.py", "generate", *options]


def test_forces_are_the_negative_gradient_of_the_energy_in_hartree_per_angstrom() -> None:
    labelled, step = (
        label(LabelJob(molecule=HF, method=SVP, forces=True, overlap=True, max_cycle=50)),
        2e-3,
    )
    energies = []
    for sign in (1, -1):
        moved = HF.positions.copy()
        moved[1, 2] += sign * step
        energy = label(
            LabelJob(
                molecule=replace(HF, positions=moved),
                method=SVP,
                forces=False,
                overlap=False,
                max_cycle=50,
            )
        ).energy
        assert energy is not None
        energies.append(energy)
    assert labelled.forces is not None
    assert labelled.forces[1, 2] == pytest.approx(
        -(energies[0] - energies[1]) / (2 * step), abs=GRID_FORCE
    )
    assert abs(labelled.forces[1, 2]) > 100 * GRID_FORCE


def test_labels_are_those_of_the_method_record() -> None:
    labelled = label(LabelJob(molecule=HF, method=SVP, forces=False, overlap=True, max_cycle=50))
    assert labelled.forces is None and labelled.method == SVP
    functional = EnergyFunctional(HF, SVP)
    assert labelled.baseline_hamiltonian is not None and labelled.overlap is not None
    assert np.array_equal(labelled.baseline_hamiltonian, functional.baseline())
    assert np.diag(labelled.overlap) == pytest.approx(1.0)
    assert (
        label(
            LabelJob(
                molecule=HF,
                method=replace(SVP, baseline="none"),
                forces=False,
                overlap=False,
                max_cycle=50,
            )
        ).baseline_hamiltonian
        is None
    )


def test_dipoles_are_taken_about_the_centre_of_nuclear_charge() -> None:
    anion = Molecule(
        "oh", np.array([8, 1]), np.array([[0.2, 0.1, -0.4], [0.3, 0.2, 0.5]]), charge=-1
    )
    shifted = replace(anion, positions=anion.positions + [1.0, -2.0, 3.0])
    method = replace(SVP, grid_level=1)
    job = LabelJob(
        molecule=anion, method=method, forces=False, overlap=False, max_cycle=50, dipole=True
    )
    dipole = label(job).properties["dipole"]
    assert label(replace(job, molecule=shifted)).properties["dipole"] == pytest.approx(
        dipole, abs=1e-5
    )
    centre = (8 * anion.positions[0] + anion.positions[1]) / 9
    solver = kohn_sham(build_mol(anion, "def2-svp"), method).run()
    about_origin = solver.dip_moment(unit="Debye", verbose=0) / E_ANGSTROM_IN_DEBYE
    assert dipole == pytest.approx(about_origin + centre, abs=1e-5)  # Q = -1
    assert job.molecule.charge == -1 and np.abs(dipole).max() > 0.1


@pytest.mark.parametrize(
    ("molecule", "max_cycle", "reason"),
    [
        (HF, 2, "RuntimeError: SCF did not converge to 1e-11 Eh in 2 cycles"),
        (
            replace(HF, charge=1, spin_multiplicity=2),
            50,
            "ValueError: multiplicity 2: only closed shells (multiplicity 1) have one Hamiltonian",
        ),
        (
            replace(HF, charge=1),
            50,
            "ValueError: hf: 9 electrons (charge +1) cannot have multiplicity 1; wanted an even"
            " multiplicity from 2 to 10",
        ),
    ],
)
def test_a_failed_molecule_says_why(molecule: Molecule, max_cycle: int, reason: str) -> None:
    assert (
        label_or_reason(
            LabelJob(
                molecule=molecule, method=SVP, forces=False, overlap=False, max_cycle=max_cycle
            )
        )
        == reason
    )


@pytest.mark.slow
def test_a_killed_run_continues_and_gives_the_same_bytes(config: Make, tmp_path: Path) -> None:
    whole, killed = (
        config(frames(6), out=str(tmp_path / "whole")),
        config(frames(6), out=str(tmp_path / "killed"), processes=2),
    )
    commands.shards_generate(whole)
    kept = tmp_path / "killed" / "staging"
    with subprocess.Popen(
        command(killed), cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and len(list(kept.glob("*.tar"))) < 2:
            time.sleep(0.02)
        process.kill()
    for _ in range(600):
        if not processes_of_session(process.pid):
            break
        time.sleep(0.1)
    assert not processes_of_session(process.pid)  # children leave with their parent
    done = {path: path.stat().st_mtime_ns for path in kept.glob("*.tar")}
    assert 2 <= len(done) < 6 and not (tmp_path / "killed" / "manifest.json").exists()
    (kept / "water-5.partial").write_bytes(b"half a file")
    result = subprocess.run(command(killed), cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"{6 - len(done)}/{6 - len(done)}" in result.stderr  # only what was missing
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert files == ["manifest.json", "shard-000000.tar", "shard-000001.tar", "shard-000002.tar"]
    assert files == sorted(path.name for path in (tmp_path / "killed").iterdir())
    assert all(
        (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
        for name in files
    )
    assert (
        Manifest.load(tmp_path / "killed").splits.tolist() == ["train"] * 5 + ["test"]
        and verify(tmp_path / "killed") == []
    )


@pytest.mark.slow
def test_failures_are_named_and_a_finished_dataset_is_left_alone(
    config: Make, tmp_path: Path
) -> None:
    triplet = (
        "2\nkey=oxygen multiplicity=3\nO 0 0 0\nO 0 0 1.2\n"
        "2\nkey=radical\nO 0 0 0\nH 0 0 1\n"
        "2\nkey=dented\nF 0 0 0\nH 0 0 nan\n"
        "2\nkey=touching\nF 0 0 0\nH 0 0 0.01\n"
    )
    settings = config(frames(1) + triplet)
    report = commands.shards_generate(settings)
    for line in (
        "rejected: 4\n  oxygen: frame 1, line 6 (oxygen): multiplicity 3: only closed shells",
        "\n  radical: frame 2, line 10 (radical): 9 electrons (charge +0) cannot have",
        "\n  frame-000003: frame 3, line 17: got 'nan', wanted a finite number",
        "\n  touching: frame 4, line 18 (touching): molecule 'touching': atoms 0 and 1 coincide",
    ):
        assert line in report
    finished = Manifest.load(tmp_path / "out")
    assert finished.key.tolist() == ["water-0"]
    assert ShardReader(finished).read(0).energy == pytest.approx(-76.2, abs=0.2)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert commands.shards_generate(settings) == report
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    with pytest.raises(ValueError, match=r"the finished dataset in .* differ: xc 'pbe' and 'lda'"):
        commands.shards_generate(settings.model_copy(update={"xc": "lda"}))
    with pytest.raises(
        ValueError, match=r"the finished dataset in .* differ: input 'XYZ file, SHA-256"
    ):
        commands.shards_generate(config(frames(2)))
    with pytest.raises(
        ValueError,
        match=r"differ: labels .*'energy', 'forces'\) and .*'energy'\); choose another folder",
    ):
        commands.shards_generate(config(frames(1) + triplet, forces=False))


def test_kept_labels_of_another_method_or_geometry_are_not_used(
    config: Make, tmp_path: Path
) -> None:
    from helm_scale.data.format.staging import StagingFolder

    method = replace(SVP, xc="lda")
    labels = ("hamiltonian", "baseline_hamiltonian", "energy")
    StagingFolder(tmp_path, method, labels).add(
        label(LabelJob(molecule=HF, method=method, forces=False, overlap=False, max_cycle=50))
    )
    assert StagingFolder(tmp_path, method, labels).missing([HF, replace(HF, key="other")]) == [
        replace(HF, key="other")
    ]
    with pytest.raises(
        ValueError, match=r"staging/hf.tar and what is asked for now differ: xc 'lda' and 'pbe'"
    ):
        StagingFolder(tmp_path, SVP, labels).missing([HF])
    with pytest.raises(
        ValueError,
        match=r"staging/hf.tar and .* differ: labels .*'energy'\) and .*'energy', 'forces'\)",
    ):
        StagingFolder(tmp_path, method, (*labels, "forces")).missing([HF])
    with pytest.raises(ValueError, match=r"staging/hf.tar: labels of another geometry or charge"):
        StagingFolder(tmp_path, method, labels).missing(
            [replace(HF, positions=HF.positions + 1e-9)]
        )


@pytest.mark.parametrize("retry", ["level_shift", "second_order"])
def test_an_scf_that_fails_is_retried_and_the_sample_says_how_it_converged(retry: str) -> None:
    # DIIS drifts off between the ionic and the covalent state of stretched lithium hydride.
    job = LabelJob(
        molecule=Molecule("lih", np.array([3, 1]), np.array([[0.0, 0, 0], [0, 0, 4.0]])),
        method=replace(SVP, grid_level=0, conv_tol=1e-9),
        forces=False,
        overlap=True,
        max_cycle=50,
    )
    with pytest.raises(RuntimeError, match=r"did not converge to 1e-09 Eh in 50 cycles$"):
        label(job)
    labelled = label(replace(job, scf_retries=(retry,)))
    assert codec.decode(codec.encode(labelled), "here").scf_retry == retry
    _, orbitals = scipy.linalg.eigh(labelled.hamiltonian, labelled.overlap)
    density = 2 * orbitals[:, :2] @ orbitals[:, :2].T
    energy = EnergyFunctional(labelled, job.method).energy_and_fock(density)[0]
    assert energy == pytest.approx(labelled.energy, abs=1e-5)
    assert energy == pytest.approx(-7.94845, abs=1e-5)  # of both


def test_a_state_with_its_homo_above_its_lumo_is_no_label() -> None:
    # The closed shell of O2 lies above its triplet: no filling of its orbitals is self-consistent.
    oxygen = Molecule("o2", np.array([8, 8]), np.array([[0.0, 0, 0], [0, 0, 1.2]]))
    job = LabelJob(
        molecule=oxygen,
        method=replace(SVP, grid_level=0, conv_tol=1e-9),
        forces=False,
        overlap=False,
        max_cycle=50,
        scf_retries=("second_order",),
    )
    reason = label_or_reason(job)
    assert reason == (
        "RuntimeError: SCF did not converge to 1e-09 Eh in 50 cycles; second_order: HOMO above LUMO"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"xc": "pbee"}, "xc: got 'pbee', not a functional of PySCF"),
        ({"auxbasis": "def2-universl-jkfit"}, "not a basis of PySCF; did you mean 'def2univ"),
        ({"auxbasis": "cc-pvdz-jkfit"}, "auxbasis: 'cc-pvdz-jkfit' lacks Li; wanted one that"),
    ],
)
def test_functional_and_fitting_basis_are_checked_before_the_first_molecule(
    changes: dict, message: str, config: Make, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        commands.shards_generate(config("2\n\nLi 0 0 0\nH 0 0 1.6\n", **changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"in.xyz: empty"),
        (
            "2\nkey=hi\nI 0 0 0\nH 0 0 1.6\n",
            r"in.xyz, frame 0, line 1 \(hi\): element I is not among the 26 elements of def2-svp",
        ),
        (
            "2\nkey=oh\nO 0 0 0\nH 0 0 1\n",
            r"in.xyz, frame 0, line 1 \(oh\): 9 electrons \(charge \+0\)"
            " cannot have multiplicity 1",
        ),
        ("2\nkey=h.2\nH 0 0 0\nH 0 0 0.7\n", r"key 'h.2': wanted 1 to 90 of"),
    ],
)
def test_input_that_cannot_be_labelled_stops_the_run_before_it_starts(
    text: str, message: str, config: Make, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        commands.shards_generate(config(text))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_launcher_answers_mistakes_in_one_line(tmp_path: Path) -> None:
    for arguments, message in (
        [["verify", "."], "manifest.json: not found"],
        [["verfy"], "did you mean 'shards verify'?"],
    ):
        result = subprocess.run(
            [sys.executable, "launch/shards.py", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert (
            result.returncode == 1 and message in result.stderr and "Traceback" not in result.stderr
        )
    result = subprocess.run(
        [sys.executable, "launch/shards.py", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0 and "shards generate" in result.stdout
