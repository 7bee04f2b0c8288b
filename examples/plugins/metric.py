"""A metric in one file: how much of the truth stands out from the map."""

from mmattrib import hookimpl, metrics


class Coverage(metrics.Metric):
    name, summary = "coverage", "share of the truth where the map is above its own mean"

    def score(self, case):
        return (case.scores > case.scores.mean())[case.truth.mask].mean()


@hookimpl
def register_metrics(register):
    """Register it under its name."""
    register(Coverage.name, Coverage, summary=Coverage.summary)
