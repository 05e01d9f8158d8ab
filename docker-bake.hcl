# All five images:   docker buildx bake            (or one: docker buildx bake processor)
# Settings come from the environment: VERSION=1.2.3 REVISION=$(git rev-parse HEAD) docker buildx bake
# With SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) files have that time; PYTHON=...@sha256:... fixes the base.

variable "PYTHON" { default = "python:3.12-slim-bookworm" }
variable "REGISTRY" { default = "tillstream" }
variable "TAG" { default = "dev" }
variable "VERSION" { default = "0.1.0" }
variable "REVISION" { default = "unknown" }
variable "CREATED" { default = "1980-01-01T00:00:00Z" }
variable "SOURCE" { default = "unknown" }
variable "SOURCE_DATE_EPOCH" { default = "315532800" }

group "default" { targets = ["generator", "processor", "sink", "auditor", "cli"] }

target "image" {
  context = "."
  args = {
    PYTHON = PYTHON, VERSION = VERSION, REVISION = REVISION, CREATED = CREATED, SOURCE = SOURCE
    SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH
  }
}

target "generator" {
  inherits = ["image"]
  dockerfile = "services/generator/Dockerfile"
  tags = ["${REGISTRY}/generator:${TAG}"]
}

target "processor" {
  inherits = ["image"]
  dockerfile = "services/processor/Dockerfile"
  tags = ["${REGISTRY}/processor:${TAG}"]
}

target "sink" {
  inherits = ["image"]
  dockerfile = "services/sink/Dockerfile"
  tags = ["${REGISTRY}/sink:${TAG}"]
}

target "auditor" {
  inherits = ["image"]
  dockerfile = "services/auditor/Dockerfile"
  tags = ["${REGISTRY}/auditor:${TAG}"]
}

target "cli" {
  inherits = ["image"]
  dockerfile = "cli/Dockerfile"
  tags = ["${REGISTRY}/cli:${TAG}"]
}
