"""The images, as an engine builds and runs them: what is in them, what they can't do, how they start, stop and say how
they are. Base images may be stand-ins (tests/e2e/images/make says which); what is asked here holds for both.
"""

import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.utils import canonicalize_name

from support.containers import attempt, docker, engine_or_skip, inspect, logs, until

REPOSITORY = Path(__file__).parents[2]
BUILD_SECONDS = 1500.0
"""Of all five on two busy cores, with every download."""
STOP_SECONDS = 30
"""What compose and Kubernetes give a service."""
TAG = "test"
OWN = {
    "generator": {"sales", "generator"},
    "processor": {"sales", "processor"},
    "sink": {"sales", "sink"},
    "auditor": {"sales", "sink", "tillstream", "auditor"},
    "cli": {"sales", "generator", "processor", "sink", "tillstream"},
}
IMAGES = tuple(OWN)
SERVICES = ("generator", "processor", "sink", "auditor")
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp")  # noqa: S108
CANARY = f"canary-{uuid.uuid4().hex}"
LABELS = {
    "org.opencontainers.image.version": "9.8.7",
    "org.opencontainers.image.revision": "0123456789abcdef",
    "org.opencontainers.image.created": "2026-11-20T00:00:00Z",
    "org.opencontainers.image.source": "https://example.invalid/tillstream",
    "org.opencontainers.image.licenses": "Apache-2.0",
}

SERVERS = {
    "kafka": ("apache/kafka:4.3.1", ()),
    "redis": ("redis:8", ()),
    "dynamodb": ("amazon/dynamodb-local:3.3.1", ()),
    "s3": ("chrislusf/seaweedfs:4.46", ("mini", "-dir=/data")),
}
SETTINGS = {
    "STREAM": "kafka",
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "REDIS_URL": "redis://redis:6379/0",
    "AWS_ENDPOINT_URL_S3": "http://s3:8333",
    "AWS_ENDPOINT_URL_DYNAMODB": "http://dynamodb:8000",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test-secret",
    "S3_BUCKET": "sales",
    "PARTITIONS": "2",
    "AUDIT_SECONDS": "5",
    "ROTATE_SECONDS": "2",
}
KAFKA = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
    "KAFKA_ADVERTISED_LISTENERS": "PLAINTEXT://kafka:9092",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    "KAFKA_HEAP_OPTS": "-Xmx512m",
}


@pytest.fixture(scope="module")
def built() -> Iterator[None]:
    """All five, from this tree, beside a file that must not get in and with a secret in the environment."""
    engine_or_skip()
    hidden = REPOSITORY / "services" / "processor" / ".env"
    assert not hidden.exists()
    hidden.write_text(f"KAFKA_SASL_PASSWORD={CANARY}\n")
    arguments = {name.rpartition(".")[2].upper(): value for name, value in LABELS.items() if "licenses" not in name}
    try:
        done = subprocess.run(
            ["docker", "buildx", "bake", "--progress", "plain"],
            cwd=REPOSITORY,
            env={**os.environ, **arguments, "TAG": TAG, "KAFKA_SASL_PASSWORD": CANARY},
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    finally:
        hidden.unlink()
    assert done.returncode == 0, done.stderr[-5000:]
    yield
    docker("image", "rm", *map(image, IMAGES))


def image(name: str) -> str:
    return f"tillstream/{name}:{TAG}"


def python(name: str, program: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """Runs a program in the image, hardened as compose and Kubernetes run it."""
    options = options or HARDENED
    return attempt("run", "--rm", "--network", "none", *options, "--entrypoint", "python", image(name), "-c", program)


def answer(name: str, program: str, *options: str) -> Any:
    """What the program prints, as JSON."""
    done = python(name, program, *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", IMAGES)
def test_it_runs_as_a_user_that_nobody_else_is(built: None, name: str) -> None:
    assert inspect(image(name))["Config"]["User"] == "10001:10001"
    ids = answer(name, "import os, json; print(json.dumps([os.getresuid(), os.getresgid(), os.getgroups()]))")
    assert ids == [[10001] * 3, [10001] * 3, [10001]]


@pytest.mark.parametrize("name", IMAGES)
def test_its_user_can_write_to_its_own_folders_only(built: None, name: str) -> None:
    look = """
import json, os
own = [folder for folder, _, files in os.walk("/") if not folder.startswith(("/proc", "/sys", "/dev"))
       for path in [folder, *(f"{folder}/{file}" for file in files)]
       if not os.path.islink(path) and os.access(path, os.W_OK)]
print(json.dumps(sorted(set(own))))
"""
    writable = answer(name, look, "--cap-drop", "ALL")
    usual = {"/tmp", "/var/tmp", "/run/lock", "/var/lock"}  # noqa: S108 (sticky, of Debian's)
    assert set(writable) - usual == ({"/var/lib/tillstream"} if name in {"processor", "cli"} else set())


@pytest.mark.parametrize("user", ["10001", "0"])
@pytest.mark.parametrize("name", IMAGES)
def test_writing_to_its_root_fails_for_root_too(built: None, name: str, user: str) -> None:
    done = python(name, "open('/opt/tillstream/lib/x', 'w')", *HARDENED, "--user", user)
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr


@pytest.mark.parametrize("name", IMAGES)
def test_its_user_cannot_become_root(built: None, name: str) -> None:
    done = python(name, "import os; os.setuid(0)", "--cap-drop", "ALL")
    assert "PermissionError" in done.stderr
    look = """
import json, os, stat
def gains(path):
    status = os.lstat(path)
    capable = stat.S_ISREG(status.st_mode) and "security.capability" in os.listxattr(path)
    return stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_ISUID | stat.S_ISGID) or capable
print(json.dumps([f"{folder}/{file}" for folder, _, files in os.walk("/") if not folder.startswith(("/proc", "/sys"))
                  for file in files if gains(f"{folder}/{file}")]))
"""
    assert answer(name, look, *HARDENED, "--user", "0", "--cap-add", "DAC_READ_SEARCH") == []


@pytest.mark.parametrize("name", IMAGES)
def test_only_what_its_lock_names_is_installed(built: None, name: str) -> None:
    look = """
import importlib.metadata as metadata, importlib.util as util, json, shutil, sys
version = "%d.%d.%d" % sys.version_info[:3]
print(json.dumps([{"python_version": version.rpartition(".")[0], "python_full_version": version},
                  sorted(each.metadata["Name"] for each in metadata.distributions()),
                  [name for name in ("pip", "ensurepip") if util.find_spec(name)]
                  + [name for name in ("pip", "pip3", "gcc", "cc") if shutil.which(name)]]))
"""
    running, found, tools = answer(name, look)
    locked = pinned(name, running) | pinned("image", running)
    assert {canonicalize_name(each) for each in found} == {canonicalize_name(each) for each in locked | OWN[name]}
    assert tools == []


def pinned(lock: str, python: dict[str, str]) -> set[str]:
    """What a lock names for the images' Python."""
    text = (REPOSITORY / "requirements" / f"{lock}.txt").read_text()
    pins = re.findall(r"^([A-Za-z0-9._-]+)==[^ ;\\]+(?: ; ([^\\\n]+))?", text, re.MULTILINE)
    there = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", **python}
    return {package for package, marker in pins if not marker or Marker(marker.strip()).evaluate(there)}


@pytest.mark.parametrize("name", IMAGES)
def test_its_labels_say_what_it_is(built: None, name: str) -> None:
    labels = inspect(image(name))["Config"]["Labels"]
    assert {key: labels[key] for key in LABELS} == LABELS
    assert labels["org.opencontainers.image.title"].startswith("Tillstream")
    assert labels["org.opencontainers.image.description"]


@pytest.mark.parametrize("name", IMAGES)
def test_it_needs_no_shell(built: None, name: str) -> None:
    config = inspect(image(name))["Config"]
    assert config["Entrypoint"][:3] == ["dumb-init", "--single-child", "--"]
    assert config["StopSignal"] == "SIGTERM"
    programs = ["dumb-init", config["Entrypoint"][3]]
    look = "repr(open(shutil.which(program), 'rb').read(4))"
    heads = answer(name, f"import json, shutil; print(json.dumps([{look} for program in {programs}]))")
    assert heads[0] == repr(b"\x7fELF")
    assert heads[1] in (repr(b"\x7fELF"), repr(b"#!/o"))  # Python, or a program that names it
    if name in SERVICES:
        assert config["Healthcheck"]["Test"][0] == "CMD"
        assert set(config["ExposedPorts"]) == {"9464/tcp"}


def test_no_secret_of_the_build_is_in_a_layer_or_the_history(built: None) -> None:
    saving = subprocess.Popen(["docker", "save", *map(image, IMAGES)], stdout=subprocess.PIPE)
    assert saving.stdout is not None
    needle, tail, seen = CANARY.encode(), b"", 0
    while chunk := saving.stdout.read(1 << 22):
        assert needle not in tail + chunk
        tail = chunk[-len(needle) :]
        seen += len(chunk)
    assert saving.wait(60) == 0
    assert seen > 100_000_000  # all layers went by
    for name in IMAGES:
        history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image(name))
        assert CANARY not in history
        assert not re.search(r"(PASSWORD|SECRET|TOKEN|ACCESS_KEY)\w*=", history)


@pytest.mark.parametrize("name", ["processor", "sink", "cli"])
def test_what_numba_compiles_was_compiled_in_the_build(built: None, name: str) -> None:
    modules = {"processor": "processor.__main__", "sink": "sink.__main__", "cli": "tillstream.csv_lines"}[name]
    program = f"""
import json
from numba.core import event
compiled = event.RecordingListener()
event.register("numba:compile", compiled)
import {modules}, sales.streams.kafka_batches
from sales.compiled import lowest
print(json.dumps([len(compiled.buffer), len(lowest.signatures)]))
"""
    assert answer(name, program) == [0, 1]


def test_code_for_another_cpu_is_compiled_at_the_start_where_the_builds_does_not_fit(built: None) -> None:
    program = "from sales.compiled import lowest; print(int(lowest(3)))"
    assert answer("processor", program, *HARDENED, "--env", "NUMBA_CPU_NAME=x86-64-v2") == 0xFFFFFF


def is_there(state: dict[str, Any]) -> bool:
    """Before that the kernel lets no signal through to the first process; it may have ended, too."""
    try:
        return b"dumb-init" in Path(f"/proc/{state['Pid']}/cmdline").read_bytes()
    except OSError:
        return not state["Running"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_stop_in_its_first_moments_is_heard(built: None, name: str) -> None:
    container = start(name, "none", "--env", "STREAM=kafka", "--env", "KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:1")
    try:
        until("its init is there", container, is_there)
        began = time.monotonic()
        docker("stop", "--time", str(STOP_SECONDS), container, seconds=STOP_SECONDS + 30)
        assert time.monotonic() - began < STOP_SECONDS
        # 143: before Python could listen; 0: after; 2 and 3: settings that it lacks, or nobody at the address
        assert inspect(container)["State"]["ExitCode"] in (0, 2, 3, 143)
    finally:
        docker("rm", "--force", "--volumes", container)


def start(name: str, network: str, *options: str) -> str:
    """A hardened container; its name."""
    container = f"tillstream-test-{name}-{uuid.uuid4().hex[:8]}"
    quick = ("--health-interval", "1s", "--health-retries", "3")
    docker("run", "--detach", "--name", container, "--network", network, *HARDENED, *quick, *options, image(name))
    return container


class Servers:
    """What services stand on, in a network of their own."""

    def __init__(self) -> None:
        self.network = f"tillstream-test-{uuid.uuid4().hex[:8]}"
        self.containers: dict[str, str] = {}
        docker("network", "create", self.network)

    def options(self) -> tuple[str, ...]:
        """How services find them."""
        return tuple(word for key, value in SETTINGS.items() for word in ("--env", f"{key}={value}"))

    def start(self) -> None:
        """All of them, and streams, bucket and tables in them."""
        for name, (public, command) in SERVERS.items():
            if attempt("image", "inspect", public).returncode != 0 and attempt("pull", public, seconds=300).returncode:
                pytest.skip(f"no image {public}, and it can't be pulled (tests/e2e/images/make)")
            environment = KAFKA if name == "kafka" else SETTINGS
            set_ = [word for key, value in environment.items() for word in ("--env", f"{key}={value}")]
            container = f"{self.network}-{name}"
            self.containers[name] = container
            docker(
                "run",
                "-d",
                "--name",
                container,
                "--network",
                self.network,
                "--network-alias",
                name,
                *set_,
                public,
                *command,
            )
        setup = f"{self.network}-setup"
        self.containers["setup"] = setup
        docker(
            "run", "-d", "--name", setup, "--network", self.network, *HARDENED, *self.options(), image("cli"), "setup"
        )
        until("streams, bucket and tables are there", setup, lambda state: state["Status"] == "exited")
        assert inspect(setup)["State"]["ExitCode"] == 0, logs(setup)

    def close(self) -> None:
        """Removes them, with what they kept."""
        if self.containers:
            attempt("rm", "--force", "--volumes", *self.containers.values())
        docker("network", "rm", self.network)


@pytest.fixture(scope="module")
def servers(built: None) -> Iterator[Servers]:
    servers = Servers()
    try:
        servers.start()
        yield servers
    finally:
        servers.close()


def health(wanted: str) -> Callable[[dict[str, Any]], bool]:
    return lambda state: state.get("Health", {}).get("Status") == wanted


def test_services_turn_healthy_and_end_in_order(servers: Servers) -> None:
    containers = {name: start(name, servers.network, *servers.options()) for name in SERVICES}
    try:
        for name, container in containers.items():
            until(f"{name} is healthy", container, health("healthy"))
        for name in ("auditor", "sink", "processor", "generator"):
            container = containers[name]
            began = time.monotonic()
            docker("stop", "--time", str(STOP_SECONDS), container, seconds=STOP_SECONDS + 30)
            state = inspect(container)["State"]
            assert (name, state["ExitCode"], state["OOMKilled"]) == (name, 0, False), logs(container)
            assert time.monotonic() - began < STOP_SECONDS
    finally:
        docker("rm", "--force", "--volumes", *containers.values())


def test_a_processor_of_two_processes_ends_in_order(servers: Servers) -> None:
    more = ("--env", "PROCESSES=2", "--env", "REDIS_PREFIX=two:")
    container = start("processor", servers.network, *servers.options(), *more)
    try:
        until("it is healthy", container, health("healthy"))
        assert docker("top", container, "-eo", "pid,args").count("-m processor") > 2  # dumb-init's line and two
        docker("stop", "--time", str(STOP_SECONDS), container, seconds=STOP_SECONDS + 30)
        assert inspect(container)["State"]["ExitCode"] == 0, logs(container)
    finally:
        docker("rm", "--force", "--volumes", container)


def test_a_service_that_no_longer_does_its_work_turns_unhealthy(servers: Servers) -> None:
    container = start("processor", servers.network, *servers.options(), "--env", "REDIS_PREFIX=away:")
    try:
        until("it is healthy", container, health("healthy"))
        docker("network", "disconnect", servers.network, container)
        until("it is unhealthy", container, health("unhealthy"))
        [*_, last] = inspect(container)["State"]["Health"]["Log"]
        assert last["ExitCode"] == 1
        assert last["Output"].strip()  # says why
    finally:
        docker("rm", "--force", "--volumes", container)
