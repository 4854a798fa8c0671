"""Predict Hamiltonians of molecules that have no labels."""

from pathlib import Path

from helm_scale.commands.models import load_predictor, validation_error
from helm_scale.config import PredictConfig
from helm_scale.reading.domain import DomainCheck


def predict(config: PredictConfig) -> str:
    """Write one npz file per molecule of an extended XYZ file; its field `about` describes it.

    Returns:
        How many files were written, and where.
    Raises:
        ValueError: no model, an unreadable or empty XYZ file, or a molecule outside the model's
            range or with an element that training did not show.
    """
    from helm_scale.data.format.xyz import read_xyz
    from helm_scale.evaluation import kohn_sham, prediction

    model, method = load_predictor(config.source, flow_steps=config.flow_steps)
    (molecules, _), out = read_xyz(config.xyz, ignore_cell=config.ignore_cell), Path(config.out)
    prediction.check_molecules(molecules, model.config.basis)
    DomainCheck(model.training_domain, config.allow_extrapolation)(molecules)
    error = validation_error(config.source)
    choice = kohn_sham.choose(config.projection, error=error, basis=method.basis)
    jobs = (
        prediction.PredictJob(
            molecule=molecule,
            residual=prediction.predict_residual(model, molecule, method),
            method=method,
            baseline=model.config.baseline,
            overlap_threshold=config.overlap_threshold,
            projected=choice.covers(molecule, method),
            path=out / f"{molecule.key}.npz",
        )
        for molecule in molecules
    )
    written = list(prediction.write_predictions(jobs, config.processes, len(molecules)))
    return (
        f"{out}: {len(written)} molecules written; their field 'about' names units and AO orders."
        f" {choice}"
    )
