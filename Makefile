# Lifeboat. `make` alone lists the targets; `make test` is what CI runs, nothing more and nothing less.
# A Debian machine with Go and make is enough: what else a target needs, it installs.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory --no-builtin-rules

export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin
export LC_ALL := C.UTF-8

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BINARIES := ./service/cmd/lifeboatd ./replicator/cmd/lifeboat-replicator ./agent/cmd/lifeboat-agent ./sdk/cmd/lifeboat
SCENARIO := ./sdk/scenario
FUZZTIME ?= 20s
SEED     ?=

# Everything but the end-to-end packages, which need the binaries, start machines and take minutes.
UNIT = $$(go list ./... | grep -v /sdk/scenario)

##@ Use it

demo: packages build ## Watch a Linux machine being protected, drilled, lost, recovered and brought home (needs root)
	go run $(SCENARIO)/cmd/demo -bin bin

run: build ## Run lifeboatd with everything in one process on https://127.0.0.1:8443, data in .work/
	mkdir -p .work
	exec bin/lifeboatd --data-dir .work/lifeboatd --listen 127.0.0.1:8443

##@ Make it

build: ## Build static binaries into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/ $(BINARIES)

generate: bpf ## Make generated code and documents again
	go generate ./openapi/...
	go test ./docs -run 'EqualTheTable' -count=1 -update
	go test ./api -run 'EveryMethodOfTheAzureSDK' -count=1 -update

# The compiler's version and the path-free names make the object the same bytes on every machine.
BPF := agent/track/ebpf
bpf: packages ## Compile the programs that track changes inside the kernel
	cd $(BPF) && clang-14 -O2 -g -Wall -Wno-logical-op-parentheses -target bpfel -mcpu=v3 -ffile-prefix-map=$(CURDIR)/$(BPF)=. -fdebug-compilation-dir=. \
	  -c tracker.bpf.c -o tracker.bpf.o && llvm-strip-14 -g tracker.bpf.o

lint: .tools/golangci-lint ## Run golangci-lint
	.tools/bin/golangci-lint run --allow-parallel-runners ./...

##@ Check it

test: packages build ## Everything CI runs: vet, unit tests, generated code, lint, end-to-end tests
	go vet ./...
	go test -shuffle=on -timeout 10m $(UNIT)
	$(MAKE) generated
	$(MAKE) lint
	$(MAKE) e2e

race: packages ## Unit tests under the race detector
	go test -race -shuffle=on -timeout 20m $(UNIT)

# Each target alone, because the fuzzer takes one at a time.
fuzz: ## Fuzz every parser for FUZZTIME (default 20s) each
	@for file in $$(grep -rlE '^func Fuzz' --include='*_test.go' .); do \
	  for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/p' $$file); do \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$(dirname $$file); \
	  done; \
	done

e2e: packages build ## End-to-end tests: real processes, machines and Redis (needs root)
	go test -count=1 -timeout 30m -p 1 $(SCENARIO)/...

chaos: packages build ## Kill processes at random moments and check every invariant; SEED repeats a run
	LIFEBOAT_CHAOS_SEED=$(SEED) go test -count=1 -timeout 60m -v -run Chaos $(SCENARIO)/e2e

soak: packages build ## The long form of chaos: 200 kills, at least 10 in each phase; writes docs/evidence/soak.txt
	@{ echo "make soak at commit $(VERSION), $$(date -u +%F), $$(nproc) processors, $$(free -g | awk '/Mem/ {print $$2}') GiB, Linux $$(uname -r)"; \
	LIFEBOAT_CHAOS_SEED=$(SEED) LIFEBOAT_CHAOS_KILLS=200 go test -count=1 -timeout 6h -v -run Chaos $(SCENARIO)/e2e; } 2>&1 | tee docs/evidence/soak.txt
	@$(MAKE) soak-track soak-group soak-host

# The long form of the test of the same name: an hour of random writes to tracked disks; writes docs/evidence/soak-track.txt.
soak-track: packages
	@{ echo "make soak-track at commit $(VERSION), $$(date -u +%F), $$(nproc) processors, $$(free -g | awk '/Mem/ {print $$2}') GiB, Linux $$(uname -r)"; \
	LIFEBOAT_CHAOS_SEED=$(SEED) LIFEBOAT_TRACK_SOAK=$${LIFEBOAT_TRACK_SOAK:-1h} go test -count=1 -timeout 3h -v -run NeverUnderReports ./agent/track/soak; } 2>&1 | tee docs/evidence/soak-track.txt

# The long form of the test of the same name: a ring of 16 machines until 500 points of the group; writes docs/evidence/soak-group.txt.
soak-group: packages
	@{ echo "make soak-group at commit $(VERSION), $$(date -u +%F), $$(nproc) processors, $$(free -g | awk '/Mem/ {print $$2}') GiB, Linux $$(uname -r)"; \
	LIFEBOAT_GROUP_SEED=$(SEED) LIFEBOAT_GROUP_POINTS=$${LIFEBOAT_GROUP_POINTS:-500} go test -count=1 -timeout 3h -v -run 'NoReceiver|RingCatches' ./agent/group; } 2>&1 | tee docs/evidence/soak-group.txt

# The long form of the test of the same name: a guest under random writes, replicated from its host; writes docs/evidence/soak-host.txt.
soak-host: packages
	@{ echo "make soak-host at commit $(VERSION), $$(date -u +%F), $$(nproc) processors, $$(free -g | awk '/Mem/ {print $$2}') GiB, Linux $$(uname -r)"; \
	LIFEBOAT_HOST_SOAK=$${LIFEBOAT_HOST_SOAK:-10m} go test -count=1 -timeout 3h -v -run UnderWrites ./agent/host; } 2>&1 | tee docs/evidence/soak-host.txt

bench: packages .tools/peers build ## Measure beside restic and the ceiling of this machine; writes docs/evidence/
	go run $(SCENARIO)/cmd/bench -bin bin -out docs/evidence

# Generated files that differ from what the generators make now. Git is not asked: a changed tree may be tested, too.
GENERATED = find . -path ./.tools -prune -o \( -name '*.gen.go' -o -name '*.bundled.json' -o -name '*.bpf.o' \) -print | sort | xargs sha256sum
generated: ## Check that generated code is what the generators make
	@before=$$($(GENERATED)); go generate ./openapi/...; $(MAKE) bpf; \
	if ! diff <(echo "$$before") <($(GENERATED)); then echo 'generated code was not up to date: run make generate, commit the result' >&2; exit 1; fi

##@ What they need

# Program and the Debian package that brings it.
PROGRAMS := ip=iproute2 redis-server=redis-server qemu-system-x86_64=qemu-system-x86 qemu-img=qemu-utils busybox=busybox-static cpio=cpio \
            modprobe=kmod mkfs.ext4=e2fsprogs mkfs.xfs=xfsprogs extlinux=extlinux mount=mount git=git node=nodejs npm=npm \
            clang-14=clang-14 llvm-strip-14=llvm-14 fio=fio mkfs.btrfs=btrfs-progs
PEERS    := restic=restic

packages: .tools/packages .tools/typescript ## Install the Debian and npm packages that are missing

.tools/packages: Makefile
	@missing=""; ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="postgresql"; test -e /usr/lib/syslinux/modules/bios/ldlinux.c32 || missing+=" syslinux-common"; \
	$(call install,$(PROGRAMS))

# What makes and checks the TypeScript client, at the versions of the lock file.
.tools/typescript: sdk/typescript/package-lock.json .tools/packages
	npm ci --prefix sdk/typescript --no-audit --no-fund --loglevel error
	@touch $@

.tools/peers: Makefile
	@missing=""; $(call install,$(PEERS))

define install
for p in $(1); do command -v "$${p%%=*}" >/dev/null || missing+=" $${p#*=}"; done; \
if [ -n "$$missing" ]; then \
  echo "installing $$missing"; \
  sudo=""; [ "$$(id -u)" = 0 ] || sudo=sudo; \
  command -v apt-get >/dev/null || { echo "no apt-get here: please install the above" >&2; exit 1; }; \
  $$sudo apt-get update -qq; \
  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
fi; \
mkdir -p .tools && touch $@
endef

GOLANGCI_VERSION := v2.15.0
.tools/golangci-lint: Makefile
	@mkdir -p .tools/bin
	@.tools/bin/golangci-lint version 2>/dev/null | grep -q "version $(GOLANGCI_VERSION:v%=%) " || \
	  GOBIN=$(CURDIR)/.tools/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@touch $@

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {print "\n" substr($$0, 5)} /^[a-z0-9]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo run build generate bpf lint test race fuzz e2e chaos soak soak-track soak-group soak-host bench generated packages help
