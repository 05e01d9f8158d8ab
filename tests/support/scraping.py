"""What a service tells of itself over HTTP."""

import urllib.error
import urllib.request


def get(port: int, path: str) -> tuple[int, str]:
    """Status and text of an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:  # our own
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.read().decode()


def scrape(port: int) -> dict[str, float]:
    """Every metric's value by its name and labels, as Prometheus writes them; nothing before they are served."""
    try:
        status, text = get(port, "/metrics")
    except urllib.error.URLError:
        return {}
    assert status == 200
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}
