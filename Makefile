# Weir's build. "make help" lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMANDS := $(notdir $(wildcard cmd/*))
GO := CGO_ENABLED=0 go
LDFLAGS := -s -w -X github.com/weirproject/weir/version.Version=$(VERSION)
PREFIX ?= /usr/local

# Debian packages, by what needs them.
RUN_PACKAGES := iproute2 nftables dnsutils curl procps
TEST_PACKAGES := $(RUN_PACKAGES) gcc libc6-dev qemu-system-x86 busybox-static iptables ipset runc
BENCH_PACKAGES := nftables iptables haproxy gcc libc6-dev
# Unpacked below bin/peers, not installed: that would start their daemons.
BENCH_PEERS := knot unbound nsd dnsdist dnsperf
GENERATE_PACKAGES := clang-19 llvm-19 libbpf-dev
LINT_PACKAGES := shellcheck git

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## bring up the demo: a lab of six hosts, real traffic (needs root)
	@scripts/need-root run
	@scripts/need-packages $(RUN_PACKAGES)
	@examples/demo.sh

stop: ## remove the demo
	@scripts/need-root stop
	@bin/weir-lab down demo

test: build ## run every test; without root only the rings that need none
	@if [ $$(id -u) = 0 ]; then \
		scripts/need-packages $(TEST_PACKAGES) && scripts/need-kernel && \
		WEIR_BIN=$(CURDIR)/bin WEIR_TEST_REQUIRE=$${WEIR_TEST_REQUIRE-root,bpf,vm} go test -count=1 -race -timeout 20m -p 1 ./... ; \
	else \
		echo "make test: not root, so only the tests without privilege run; the kernel's and the lab's need root" && \
		CGO_ENABLED=0 go test ./... ; \
	fi

build: ## build every command into bin/, static
	@mkdir -p bin
	@$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ $(addprefix ./cmd/,$(COMMANDS))

generate: ## make the eBPF objects and their Go bindings anew
	@scripts/need-packages $(GENERATE_PACKAGES)
	@go generate ./bpf ./dataplane/...

lint: ## gofmt, vet, staticcheck, shellcheck, and that generated files are current
	@scripts/need-packages $(LINT_PACKAGES) $(GENERATE_PACKAGES)
	@test -z "$$(gofmt -l .)" || { echo "not gofmt-ed:"; gofmt -l .; exit 1; }
	@go vet ./...
	@go tool staticcheck ./...
	@shellcheck .ci/run scripts/* packaging/scripts/* examples/*.sh
	@scripts/check-generated

bench: build ## run the benchmarks, beside their peers where root allows (about an hour)
	@go test -run '^$$' -bench . -benchmem ./...
	@if [ $$(id -u) = 0 ]; then \
		scripts/need-packages $(BENCH_PACKAGES) && \
		bin/weir-bench compare && bin/weir-bench update && bin/weir-bench soak && bin/weir-bench ports && bin/weir-bench edge && bin/weir-bench zones && \
		scripts/bench-packages bin/peers $(BENCH_PEERS) && bin/weir-bench dns ; \
	else \
		echo "make bench: not root, so nothing is compared with its peers" ; \
	fi

fuzz: ## fuzz every parser, FUZZTIME each (30s)
	@scripts/fuzz $${FUZZTIME:-30s}

deb: build ## make .deb and .rpm packages, in bin/packages
	@scripts/packages bin/packages

install: build ## install the commands and the systemd units below PREFIX (/usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)/etc/weir/state.d $(DESTDIR)/etc/systemd/system
	install -m 755 $(addprefix bin/,$(filter-out weir-bench,$(COMMANDS))) $(DESTDIR)$(PREFIX)/bin
	install -m 644 cmd/weir-agent/weir-agent.service cmd/weir-agent/weir-zones.service cmd/weir-controller/weir-controller.service $(DESTDIR)/etc/systemd/system

.PHONY: help run stop test build generate lint bench fuzz deb install
