"""Uploads bundles to the Hugging Face Hub, or a server of the same protocol, and downloads them."""

import logging
from pathlib import Path

from helm_scale.export import bundle
from helm_scale.extras import needs

with needs("hub"):
    from huggingface_hub import HfApi

_log = logging.getLogger(__name__)


def push(
    folder: str | Path, repository: str, endpoint: str | None = None, private: bool = True
) -> str:
    """Upload a bundle as a model repository; what a bundle does not have stays at home.

    Args:
        folder: of the bundle. repository: "name/model". endpoint: server; none: huggingface_hub's
            own.
        private: of a repository that does not exist yet.
    Returns:
        the address of the commit.
    Raises:
        ValueError: no bundle, or one with a missing or changed file; nothing is uploaded.
    """
    bundle.check_sums(Path(folder))  # before anything is made public
    api = HfApi(endpoint=endpoint)
    api.create_repo(repository, private=private, exist_ok=True)
    # By name, so that no other file of the folder is made public.
    commit = api.upload_folder(
        repo_id=repository,
        folder_path=folder,
        allow_patterns=[*bundle.FILES, bundle.SUMS],
        commit_message="Bundle of helm_scale",
    )
    return str(commit.commit_url)


def pull(
    repository: str, folder: str | Path, endpoint: str | None = None, revision: str | None = None
) -> Path:
    """Download a bundle, check it and say in the log what it contains; run nothing of it.

    Returns:
        the folder, for `Backbone.from_pretrained`.
    Raises:
        ValueError: a file is missing or changed.
    """
    names = [*bundle.FILES, bundle.SUMS]  # and nothing else that a repository may hold
    HfApi(endpoint=endpoint).snapshot_download(
        repository, revision=revision, local_dir=folder, allow_patterns=names
    )
    bundle.check_sums(Path(folder))
    _log.warning(
        "%s: %s; of these %s are code, which helm_scale does not run",
        folder,
        ", ".join(bundle.FILES),
        f"{bundle.PROGRAM} and {bundle.LOADER}",
    )
    return Path(folder)
