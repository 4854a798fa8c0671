"""Finds a trained model by folder, by the name of a model that ships, or by its name on the Hub."""

from pathlib import Path

# helm_scale/models is a link to models/, as helm_scale/configs is to configs/
SHIPPED = Path(__file__).parents[1] / "models"
CACHE = Path.home() / ".cache" / "helm_scale" / "hub"
HUB = "hub:"


def names(folder: Path = SHIPPED) -> list[str]:
    """Names of the models that ship with the package."""
    return sorted(path.parent.name for path in folder.glob("*/config.json"))


def resolve(source: str | Path, *, shipped: Path = SHIPPED, cache: Path = CACHE) -> Path:
    """Folder of a trained model.

    A folder that exists goes before a shipped model of the same name. `hub:owner/name`, or
    `hub:owner/name@revision`, is downloaded into the cache once and checked.

    Args:
        source: a folder, the name of a shipped model, or hub:owner/name.
    Raises:
        ValueError: a name that is neither a folder nor that of a shipped model; lists those.
    """
    text = str(source)
    if text.startswith(HUB):
        return _downloaded(text.removeprefix(HUB), cache)
    path = Path(source)
    if path.exists() or len(path.parts) != 1:  # whoever reads a path says what it lacks
        return path
    if (shipped / text / "config.json").is_file():
        return shipped / text
    raise ValueError(
        f"{text}: neither a folder nor a model that ships"
        f" ({', '.join(names(shipped)) or 'none does'});"
        " give a run, a checkpoint, a bundle, or hub:owner/name"
    )


def _downloaded(name: str, cache: Path) -> Path:
    """The bundle of a repository of the Hub, in the cache."""
    repository, _, revision = name.partition("@")
    folder = cache / name.replace("/", "--")
    if not (folder / "config.json").is_file():
        from helm_scale.export import hub

        hub.pull(repository, folder, revision=revision or None)
    return folder
