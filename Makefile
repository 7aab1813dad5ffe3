# make build   the program, bin/manada
# make test    installs what it needs (Debian 12), then vet and all tests
# make demo    the main job on real data, in under two minutes
# make up      a herd on this machine          make down    its end
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X manada/internal/cli.version=$(VERSION)

.PHONY: all build test check chaos demo up down deps clean

all: build

# One static program: no cgo, no paths of the machine that built it.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/manada ./cmd/manada

deps:
	@scripts/deps.sh run

# One package after the other: many of them start real herds, which should not
# compete for two cores. 20 minutes for the slowest package.
test:
	@scripts/deps.sh test
	$(GO) vet ./...
	$(GO) test -p 1 -timeout 20m ./...

check:
	$(GO) vet ./...
	$(GO) test -short ./...

# Failures in random order on one herd, 100 of them: about an hour.
chaos:
	@scripts/deps.sh test
	$(GO) test ./test/e2e -run Chaos -count=1 -long -timeout 5h -v

demo: deps build
	@scripts/demo.sh

up: deps build
	@bin/manada up

down:
	@bin/manada down

clean:
	rm -rf bin
