"""What a processor tells of itself at ``/metrics``."""

from collections.abc import Mapping
from http.client import HTTPConnection

from benchmarks.lab import BenchmarkError
from prometheus_client.parser import text_string_to_metric_families

from tillstream.local.server import LOOPBACK

SECONDS = 10.0


def scrape(port: int) -> Mapping[str, float]:
    """Every sample by its name without ``tillstream_processor_``; those that differ in labels alone are added up.

    Raises:
        BenchmarkError: it does not answer.
    """
    connection = HTTPConnection(LOOPBACK, port, timeout=SECONDS)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except OSError as error:
        raise BenchmarkError(f"the processor's metrics can't be read: {error}") from error
    finally:
        connection.close()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix("tillstream_processor_")
            found[name] = found.get(name, 0.0) + sample.value
    return found
