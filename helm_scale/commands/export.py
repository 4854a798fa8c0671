"""Write a bundle that torch and safetensors load alone, or verify one."""

from pathlib import Path

from helm_scale.commands.models import find_model, load_model
from helm_scale.config import ExportConfig


def export(config: ExportConfig) -> str:
    """Write a bundle from the newest checkpoint of a run, or only verify the one at `out`.

    A bundle that has just been written is verified too.

    Returns:
        What was verified, one line.
    Raises:
        ValueError: no checkpoint, a folder that is no bundle, or a bundle with a missing or changed
            file.
    """
    from helm_scale.export import bundle, model_card

    out = Path(config.out)
    if not config.verify:
        folder, record = find_model(config.source)
        model, method = load_model(folder)
        # a bundle that is exported again keeps the origin that it was given first
        origin = record.get("provenance") or model_card.origin(folder, record)
        bundle.write(model, method, out, origin)
    verified = bundle.verify(out)
    return (
        f"{out}: {verified.files} checksums hold; features of {verified.molecules} golden molecules"
        f" are reproduced to {verified.program_error:.1e} by model.pt2"
        f" and {verified.model_error:.1e} by this package"
    )
