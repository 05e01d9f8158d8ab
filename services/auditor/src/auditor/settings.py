"""What the auditor is told by its environment."""

from sales.settings import MetricsSettings
from tillstream.watch import WatchSettings


class AuditorSettings(WatchSettings, MetricsSettings):
    """What is verified and how often, and where metrics are served."""
