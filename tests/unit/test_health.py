"""A container's health check, asked of a real server."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry

from sales import health
from sales.telemetry import Health, served
from support.ports import lasting_ports


@dataclass
class Service:
    """Answers as the test says."""

    port: int = 0
    wrong: dict[str, str | None] = field(default_factory=lambda: {"/live": None, "/ready": None})

    def environment(self, host: str = "0.0.0.0") -> dict[str, str]:  # noqa: S104 (as images have it)
        """What the health check reads."""
        return {"METRICS_HOST": host, "METRICS_PORT": str(self.port)}


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    answers = Health(live=lambda: service.wrong["/live"], ready=lambda: service.wrong["/ready"])
    with served("127.0.0.1", 0, CollectorRegistry(), answers) as service.port:
        yield service


@pytest.mark.parametrize("host", ["0.0.0.0", "", "127.0.0.1"])  # noqa: S104 (as images have it)
def test_a_ready_service_is_healthy_wherever_it_listens(service: Service, host: str) -> None:
    assert health.main([], service.environment(host)) == 0


def test_a_service_that_is_not_ready_is_unhealthy_and_says_why(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.wrong["/ready"] = "no tick for 40 s"
    assert health.main([], service.environment()) == 1
    assert capsys.readouterr().out == "no tick for 40 s\n"


def test_live_asks_whether_it_lives_and_ready_whether_it_is_ready(service: Service) -> None:
    service.wrong["/ready"] = "waits for Kafka"
    assert health.main(["--live"], service.environment()) == 0
    service.wrong.update({"/live": "stuck", "/ready": None})
    assert health.main(["--live"], service.environment()) == 1
    assert health.main([], service.environment()) == 0


def test_nobody_there_is_unhealthy(capsys: pytest.CaptureFixture[str]) -> None:
    [port] = lasting_ports()
    assert health.main([], {"METRICS_PORT": str(port)}) == 1
    assert f"http://127.0.0.1:{port}/ready does not answer" in capsys.readouterr().out


def test_a_service_that_takes_the_question_and_says_nothing_is_unhealthy_in_time() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        said = health.ask("127.0.0.1", port, "/ready", seconds=0.2)
    assert said is not None
    assert "does not answer" in said


def test_what_is_no_http_is_unhealthy() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            with other.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(b"-ERR unknown command\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        said = health.ask("127.0.0.1", other.getsockname()[1], "/ready")
        thread.join()
    assert said is not None
    assert "does not answer" in said


@pytest.mark.parametrize("port", ["", "0", "65536", "http", "-1"])
def test_a_port_that_is_none_is_a_wrong_setting(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main([], {"METRICS_PORT": port}) == 2
    assert "METRICS_PORT" in capsys.readouterr().err


def test_an_unknown_argument_gets_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main(["--help"], {}) == 2
    assert "For example" in capsys.readouterr().err


def test_it_imports_no_library_and_nothing_of_a_service(service: Service) -> None:
    program = (
        "import sys; from sales import health; "
        "print(sorted({name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names - {'__main__'}))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    ours = [name for name in eval(found.stdout) if not name.startswith(("_", "sitecustomize"))]  # noqa: S307 (our own list)
    assert ours == ["sales"]
