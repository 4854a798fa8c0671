"""Say in a few lines what evaluations and finetunings found."""

from pathlib import Path

from helm_scale.config import SummaryConfig


def summary(config: SummaryConfig) -> str:
    """What the reports in a folder say, for people.

    Raises:
        FileNotFoundError: no report.json there or directly inside.
    """
    from helm_scale.evaluation.summary import summarise

    return summarise(Path(config.folder))
