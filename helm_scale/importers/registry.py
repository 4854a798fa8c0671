"""The datasets that can be imported, by the name that the command line gives them.

A new one is a file of this folder that makes an `Importer` (source.py), and a line here. Its module
is imported when it is asked for: most datasets need a package that the others do not.
"""

import importlib

from helm_scale.importers.source import Importer

IMPORTERS = {  # name: module, and the Importer in it
    "md17": "helm_scale.importers.md17:MD17",
    "qh9-stable": "helm_scale.importers.qh9:QH9_STABLE",
    "qh9-dynamic": "helm_scale.importers.qh9:QH9_DYNAMIC",
    "nabla-dft": "helm_scale.importers.nabla_dft:NABLA_DFT",
    "omol-csh-58k": "helm_scale.importers.omol_csh:OMOL_CSH",
    "npz": "helm_scale.importers.npz_folder:NPZ",
}


def find(name: str) -> Importer:
    """Return the importer of a dataset.

    Raises:
        ValueError: no dataset has this name; names the known ones.
    """
    if name not in IMPORTERS:
        raise ValueError(f"dataset: got '{name}', wanted one of {', '.join(IMPORTERS)}")
    module, attribute = IMPORTERS[name].split(":")
    importer = getattr(importlib.import_module(module), attribute)
    assert isinstance(importer, Importer), IMPORTERS[name]
    return importer
