# `make help` lists what there is. Everything runs from .venv, made from the hashed locks in requirements/.
# STREAM, DEMO_SECONDS, WORKERS, BENCH, FAULTS, SCHEDULES, SEED, CHAOS, MUTANTS and PYTHON may come from the command line
# or the environment.

STREAM ?= kinesis
DEMO_SECONDS ?= 60
TESTS ?= tests
WORKERS ?= 2
BENCH ?= --orders 1000000
FAULTS ?= 200
SCHEDULES ?= 300
SEED ?= 1
CHAOS ?=
MUTANTS ?=

packages := libs/sales services/generator services/processor services/sink services/auditor cli
projects := $(packages:%=%/pyproject.toml)
python := .venv/bin/python
locks := image generator processor sink auditor cli build run bench audit
names := sales generator processor sink tillstream auditor

.DEFAULT_GOAL := help
.PHONY: help demo up test bench guard chaos-processor chaos-sink mutants manifests score-manifests monitoring lint audit format lock clean
.SUFFIXES:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  make %-16s %s\n' "$$name" "$$what"; done

demo: .venv/.run  ## the whole chain for DEMO_SECONDS (60; 0: until Ctrl-C), then the proof; STREAM=kinesis or kafka
	@exec '$(python)' -m tillstream demo --stream '$(STREAM)' --seconds '$(DEMO_SECONDS)'

up: .venv/.run  ## the whole chain until Ctrl-C
	@exec '$(python)' -m tillstream up --stream '$(STREAM)'

test: .venv/.dev  ## every test, with real servers; TESTS=tests/unit for some; WORKERS (2) share the files
	@exec '$(python)' -m pytest --numprocesses '$(WORKERS)' --dist loadfile $(TESTS)

bench: .venv/.run  ## the processor against a real Kafka and Redis, answers compared; BENCH="--orders 10000000 --runs 5"
	@exec '$(python)' -m benchmarks.processor $(BENCH)

guard: .venv/.run  ## fails when the processor has become slow against itself without compiled code, or against stock Bytewax
	@exec '$(python)' -m benchmarks.guard

chaos-processor: .venv/.dev  ## FAULTS (200) drawn by SEED (1), each recovered from and judged; CHAOS="--json FILE --help"
	@exec env PYTHONPATH=tests '$(python)' -m chaos --faults '$(FAULTS)' --seed '$(SEED)' $(CHAOS)

chaos-sink: .venv/.dev  ## SCHEDULES (300) drawn by SEED (1): sinks that are killed and frozen at each arrow; CHAOS="--first N --help"
	@exec env PYTHONPATH=tests '$(python)' -m chaos.sinks --schedules '$(SCHEDULES)' --seed '$(SEED)' $(CHAOS)

mutants: .venv/.dev  ## each guard of the sink's promise taken away: its test must fail; MUTANTS="--only pin --json"
	@exec env PYTHONPATH=tests '$(python)' -m mutations $(MUTANTS)

monitoring: .venv/.dev  ## Grafana's dashboards and the operator's rules again, from deploy/monitoring/dashboards and rules
	@exec '$(python)' -m deploy.monitoring.dashboards

lint: .venv/.dev  ## format, style, types and import arrows
	'$(python)' -m ruff format --check .
	'$(python)' -m ruff check .
	'$(python)' -m mypy $(packages:%=%/src) tests deploy/monitoring/dashboards
	.venv/bin/lint-imports

audit: .venv/.audit  ## known weaknesses in what the services and the command line lock; exit 3: could not be looked up
	@exec .venv/audit/bin/python requirements/audit.py $(patsubst %,requirements/%.txt,$(filter-out bench audit,$(locks)))

format: .venv/.dev  ## put the code into its one format
	'$(python)' -m ruff format .
	'$(python)' -m ruff check --fix .

manifests:  ## deploy/k8s/tillstream-*.yaml again, from the overlays; needs kubectl
	for overlay in local aws; do \
		{ printf '# Made by `make manifests` from overlays/%s: change that. For kubectl apply -f.\n---\n' "$$overlay" && \
			kubectl kustomize "deploy/k8s/overlays/$$overlay"; } > deploy/k8s/tillstream-$$overlay.yaml || exit 1; done

# Left to our own rules (tests/support/manifest_rules.py), or not meant for us: images are pinned, and `kind load` brings
# them without a registry; the local stores keep their images' users, are asked the same by all probes, as nobody else
# could take their place, and nobody calls their pods by name; sinks are spread by topologySpreadConstraints.
unscored := container-image-pull-policy container-security-context-user-group-id pod-probes-identical statefulset-has-servicename \
	deployment-has-host-podantiaffinity

score-manifests:  ## what kube-score says of deploy/k8s/tillstream-*.yaml; needs kube-score
	@command -v kube-score >/dev/null || { \
		echo "needs: go install github.com/zegl/kube-score/cmd/kube-score@v1.20.0" >&2; exit 1; }
	kube-score score --output-format ci $(unscored:%=--ignore-test %) deploy/k8s/tillstream-*.yaml

# Universal: one lock for 3.11 and 3.12 and every platform. No address of a package index goes in, so that plain pip
# installs it from wherever it is set up to. The other locks take their versions from dev.txt. UPGRADE=1 takes newer ones.
compile = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-header --no-annotate $(names:%=--no-emit-package %)

lock:  ## the locks again from requirements/*.in and pyproject.toml; needs uv; UPGRADE=1 for newer versions
	@command -v uv >/dev/null || { echo "make lock needs uv: https://docs.astral.sh/uv/" >&2; exit 1; }
	$(compile) $(if $(UPGRADE),--upgrade) -o requirements/dev.txt requirements/dev.in
	for name in $(locks); do \
		$(compile) -c requirements/dev.txt -o requirements/$$name.txt requirements/$$name.in || exit 1; done

clean:  ## remove the environment and every cache in the tree
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.run: requirements/install requirements/run.txt $(projects)
	@sh requirements/install .venv requirements/run.txt $(packages)
	@touch $@

# An environment of its own: it brings a pip.
.venv/.audit: requirements/install requirements/audit.txt
	@sh requirements/install .venv/audit requirements/audit.txt
	@touch $@

.venv/.dev: requirements/install requirements/dev.txt $(projects)
	@sh requirements/install .venv requirements/dev.txt $(packages)
	@touch .venv/.run $@
