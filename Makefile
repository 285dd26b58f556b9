# Wattle. `make help` lists what there is. Only apt, the lab and the agent run as root; .venv and build/ belong to the
# checkout's owner, whoever calls make.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PYTHONDONTWRITEBYTECODE := 1

OWNER := $(shell stat -c %u .)
OWNER_GROUP := $(shell stat -c %g .)
OWNER_HOME := $(or $(shell getent passwd $(OWNER) | cut -d: -f6),$(CURDIR)/build)
ME := $(shell id -u)
AS_ROOT := $(if $(filter 0,$(ME)),,sudo --preserve-env=PYTHONDONTWRITEBYTECODE,CI)
AS_OWNER := $(if $(filter 0,$(ME)),$(if $(filter-out 0,$(OWNER)),setpriv --reuid=$(OWNER) --regid=$(OWNER_GROUP) --clear-groups env HOME=$(OWNER_HOME)))
# Debian's own python3 is the one that sees python3-bpfcc; the python3 on PATH may be another.
DEBIAN_PYTHON := /usr/bin/python3
PY := .venv/bin/python
PYTEST := $(PY) -m pytest -q -p no:cacheprovider
VERDICTS := build/tests

DEMO_PACKAGES := python3-bpfcc python3-venv graphviz dnsmasq-base redis-server nginx-light nftables iproute2 util-linux
CLUSTER_PACKAGES := etcd-server openssl
E2E_PACKAGES := $(CLUSTER_PACKAGES) containerd runc containernetworking-plugins ipset iptables conntrack nftables iproute2 mmdebstrap buildah
TEST_PACKAGES := $(DEMO_PACKAGES) openssl postgresql qemu-system-x86 busybox-static kmod cpio clang llvm libbpf-dev chromium prometheus

define apt-install
missing=$$(for p in $(1); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
if [ -n "$$missing" ]; then \
  echo "installing Debian packages:" $$missing; \
  $(AS_ROOT) deploy/apt-install $$missing; \
fi
endef

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- set-up ---------------------------------------------------------------------------------------------------------

.venv/ready: requirements/dev.txt pyproject.toml
	@if [ ! -x $(DEBIAN_PYTHON) ]; then echo "Wattle needs Debian's own $(DEBIAN_PYTHON); this machine has none." >&2; exit 1; fi
	@echo "making .venv"
	@$(AS_OWNER) $(DEBIAN_PYTHON) -m venv --system-site-packages .venv
	@$(AS_OWNER) .venv/bin/pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	@$(AS_OWNER) .venv/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(AS_OWNER) touch .venv/ready

# htmx 2.0.10 as published on npm: its bytes are pinned, so it does not matter whose package carries them. A wheel that
# bundles it is taken with the pip that is there anyway: npm itself would be dozens of packages for one file.
HTMX := aggregator/web/static/vendor/htmx.min.js
HTMX_WHEEL := django-htmx==1.29.0
HTMX_SHA256 := 71ea67185bfa8c98c39d31717c6fce5d852370fcdfd129db4543774d3145c0de

$(HTMX): | .venv/ready
	@echo "fetching htmx"
	@$(AS_OWNER) mkdir -p build/htmx $(@D)
	@$(AS_OWNER) .venv/bin/pip download -q --disable-pip-version-check --no-deps -d build/htmx $(HTMX_WHEEL)
	@$(AS_OWNER) $(PY) -m zipfile -e build/htmx/*.whl build/htmx/wheel
	@echo "$(HTMX_SHA256)  build/htmx/wheel/django_htmx/static/django_htmx/htmx-2.min.js" | sha256sum --check --quiet
	@$(AS_OWNER) install -m 644 build/htmx/wheel/django_htmx/static/django_htmx/htmx-2.min.js $@

.PHONY: web
web: $(HTMX) ## fetch what the page needs and does not keep in git

.PHONY: setup-demo
setup-demo: ## install what the demo needs
	@$(call apt-install,$(DEMO_PACKAGES))
	@$(MAKE) .venv/ready web

.PHONY: setup
setup: ## install what the tests need
	@$(call apt-install,$(TEST_PACKAGES))
	@$(MAKE) .venv/ready web

.PHONY: lock
lock: ## pin every dependency by hash again
	$(AS_OWNER) .venv/bin/uv pip compile -q --universal --no-header --python-version 3.11 --generate-hashes --all-extras -o requirements/dev.txt pyproject.toml
	$(AS_OWNER) .venv/bin/uv pip compile -q --universal --no-header --python-version 3.11 --generate-hashes --extra aggregator -o requirements/aggregator.txt pyproject.toml
	$(AS_OWNER) .venv/bin/uv pip compile -q --universal --no-header --python-version 3.11 --generate-hashes -o requirements/agent.txt pyproject.toml

.PHONY: proto
proto: ## generate proto/wattle/v1/*_pb2*.py
	$(AS_OWNER) $(PY) -m grpc_tools.protoc -I proto --python_out=proto --grpc_python_out=proto --mypy_out=proto \
	  --plugin=protoc-gen-mypy=.venv/bin/protoc-gen-mypy $$(find proto -name '*.proto')

.PHONY: docs
docs: .venv/ready ## write docs/configuration.md, docs/metrics.md and what the chart repeats of the code
	@$(AS_OWNER) $(PY) -m docs.reference
	@$(AS_OWNER) $(PY) -m tests.chart.pages

.PHONY: bpf-core
bpf-core: setup ## compile the BPF source by clang as CO-RE, the later option
	@$(AS_OWNER) $(PY) -m agent.kernel.core

# ---- the demo -------------------------------------------------------------------------------------------------------

SCENARIO ?= lab/shop.yaml

.PHONY: demo
demo: setup-demo ## a lab, an agent, an aggregator: see a policy being woven (ONCE=1 exits, SCENARIO=FILE takes another lab)
	@$(PY) -m lab.demo $(SCENARIO) $(if $(ONCE),--once)

# ---- tests ----------------------------------------------------------------------------------------------------------
# Tiers are split by what they need. Those that need root run as root, the rest as the checkout's owner.

# $(1) tier, $(2) who, $(3) further arguments
define tier
@echo "== $(1)"
@$(AS_OWNER) mkdir -p $(VERDICTS)
@$(2) $(PYTEST) --junitxml=$(VERDICTS)/$(1).xml $(3) tests/$(1) || echo $(1) >> $(VERDICTS)/failed
endef

.PHONY: test
test: setup ## every tier but cluster, e2e and soak
	@rm -rf $(VERDICTS)
	@$(AS_OWNER) mkdir -p $(VERDICTS)
	@$(MAKE) lint || echo lint >> $(VERDICTS)/failed
	@$(MAKE) test-unit test-property test-conformance test-contract test-integration test-chart test-ui test-kernel test-chaos test-vm
	@$(PY) tests/verdict.py $(VERDICTS)

.PHONY: lint
lint: .venv/ready ## ruff, mypy --strict, the import contracts
	@$(AS_OWNER) .venv/bin/ruff check --no-cache -q .
	@$(AS_OWNER) .venv/bin/ruff format --no-cache -q --check .
	@$(AS_OWNER) .venv/bin/mypy --cache-dir=build/mypy
	@$(AS_OWNER) .venv/bin/lint-imports --no-cache --no-logo

.PHONY: test-unit test-property test-conformance test-contract test-integration test-ui test-kernel test-chaos test-vm
test-unit: .venv/ready ## needs nothing
	$(call tier,unit,$(AS_OWNER),-n 2)
test-property: .venv/ready ## laws, by hypothesis
	$(call tier,property,$(AS_OWNER),-n 2)
test-conformance: .venv/ready ## NetworkPolicy semantics, case by case
	$(call tier,conformance,$(AS_OWNER),-n 2)
test-contract: .venv/ready ## one suite for every implementation of a Protocol
	$(call tier,contract,$(AS_ROOT),)
test-integration: .venv/ready ## a real PostgreSQL, a real lab, the demo
	$(call tier,integration,$(AS_ROOT),)
test-ui: .venv/ready web ## the page, in Debian's Chromium; the story on a real lab
	$(call tier,ui,$(AS_OWNER),-n 2)
	$(call tier,story,$(AS_ROOT),)
test-kernel: .venv/ready ## this machine's kernel
	$(call tier,kernel,$(AS_ROOT),)
test-chaos: .venv/ready ## kill -9, partitions, torn files
	$(call tier,chaos,$(AS_ROOT),)
test-vm: .venv/ready ## Debian's kernels in QEMU
	$(call tier,vm,$(AS_ROOT),)

.PHONY: chaos
chaos: setup ## kill everything and count (SECONDS=60 or KILLS=1000)
	@$(AS_ROOT) $(PY) -m tests.chaos.driver --seconds $(or $(SECONDS),60) $(if $(KILLS),--kills $(KILLS))

.PHONY: test-chart
test-chart: .venv/ready ## the Helm chart: every configuration, every switch
	$(call tier,chart,$(AS_OWNER),)

.PHONY: test-images
test-images: .venv/ready ## the built images, entered as the chart enters them; builds them where they are not there
	@[ -e build/images/wattle-postgres.tar ] || $(MAKE) images
	@$(AS_ROOT) $(PYTEST) tests/images

# The lab and the agent run as root, the rest as the owner, whose cache has Kubernetes' programs.
CLUSTER_TRAFFIC := tests/cluster/test_chart_traffic.py

.PHONY: test-cluster test-e2e soak
test-cluster: setup ## a real API server
	@$(call apt-install,$(CLUSTER_PACKAGES))
	@$(AS_OWNER) $(PY) -m tests.cluster.kubebinaries || echo "test-cluster: the tier will say why it skips"
	@failed=; $(AS_OWNER) $(PYTEST) tests/cluster --ignore=$(CLUSTER_TRAFFIC) || failed=1; \
	  $(AS_ROOT) env HOME=$(OWNER_HOME) $(PYTEST) $(CLUSTER_TRAFFIC) || failed=1; [ -z "$$failed" ]
test-e2e: setup ## a real cluster of two nodes with an enforcer of policies (MINUTES=3 of kills at its end)
	@$(call apt-install,$(E2E_PACKAGES))
	@[ -e build/images/wattle-agent.tar ] && [ -e build/images/wattle-aggregator.tar ] || $(MAKE) images
	@$(if $(filter 0,$(ME)),,sudo) env MINUTES=$(or $(MINUTES),3) $(PYTEST) tests/e2e
soak: setup ## the same cluster, killed again and again under load (MINUTES=30)
	@$(call apt-install,$(E2E_PACKAGES))
	@[ -e build/images/wattle-agent.tar ] && [ -e build/images/wattle-aggregator.tar ] || $(MAKE) images
	@$(if $(filter 0,$(ME)),,sudo) env MINUTES=$(or $(MINUTES),30) $(PYTEST) tests/e2e/test_5_last.py

# ---- images ---------------------------------------------------------------------------------------------------------

.PHONY: images
images: web ## build the container images into build/images (REGISTRY=, TAG=, IMAGES=, BASE=debian:bookworm-slim)
	@$(call apt-install,buildah mmdebstrap)
	@$(if $(filter 0,$(ME)),,sudo) env REGISTRY=$(REGISTRY) TAG=$(TAG) BASE=$(BASE) IMAGES="$(IMAGES)" \
	  REVISION=$$(git -c safe.directory='*' rev-parse HEAD) deploy/build-images build/images

# ---- figures --------------------------------------------------------------------------------------------------------

BENCHES := $(foreach area,capture ingest cluster policy review web,$(if $(wildcard bench/$(area).py),bench-$(area)))

.PHONY: bench bench-page $(BENCHES)
bench: $(BENCHES) ## every figure, one JSON object a line, kept in build/bench/
$(BENCHES): bench-%: setup
	@$(AS_ROOT) $(PY) -m bench.$*
bench-page: .venv/ready ## write docs/performance.md from what was measured
	@$(AS_OWNER) $(PY) -m bench.page

.PHONY: clean
clean: ## remove what was built
	$(AS_ROOT) rm -rf build .venv
