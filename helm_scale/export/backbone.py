"""The backbone for those who have this package: the loader's interface on the package's modules.

Unlike the loader, it starts at once, moves with `.to(device)`, and checks the files of the bundle.
"""

from pathlib import Path

from helm_scale.config import read_record
from helm_scale.export import bundle, loader
from helm_scale.export.program import LayerFeatures


class Backbone(loader.Backbone):
    """Node features of molecules; export/loader.py has axes, arguments and errors."""

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "Backbone":
        """Load a bundle, in evaluation mode, with trainable weights.

        Raises:
            ValueError: no bundle, or one with a missing or changed file.
        """
        folder = Path(path)
        bundle.check_sums(folder)
        record = read_record(folder / "config.json")
        return cls(LayerFeatures(bundle.trunk(folder)), record).eval()
