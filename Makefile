# make build   the program, bin/manada
# make test    installs what it needs (Debian 12), then vet and all tests
# make demo    the main job on real data, in under two minutes
# make image   the container image, and those of deploy/compose over it
# make guide   the operating guide of deploy/compose on a Docker engine; about 6 minutes
# make up      a herd on this machine          make down    its end
# make trust   what must hold every time, tried as often as is promised; hours
# make regress PostgreSQL's regression suite, isolation tester and pipelines through the proxy
# make drivers node-postgres, psycopg 2 and 3 and pgjdbc through the proxy
# make proxy-soak  switchovers and crashes under many clients, every answer checked; hours
# make proxy-crowd 10,000 clients on 100 connections for a minute
# make proxy-tagged  clients of one pool that do anything, each with its own tag, while servers crash; then three on one connection; 10 minutes each
# make race    every test that does not measure, with the race detector
GO      ?= go
# What many goroutines share is tested with the race detector, and the rest without.
RACED   := ./internal/peer/... ./internal/agent/... ./internal/store/... ./internal/blob/... ./internal/proxy/...
REST     = $(shell $(GO) list ./... | grep -vE '/internal/(peer|agent|store|blob|proxy)(/|$$)|/test/')
LONGEST := ./test/e2e ./test/guide
OTHERS   = $(shell $(GO) list ./test/... | grep -vE '/test/(e2e|guide)$$')
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X manada/internal/cli.version=$(VERSION)

.PHONY: all build test check chaos trust race regress drivers proxy-soak proxy-crowd proxy-tagged notices image guide demo up down deps clean

all: build

# One static program: no cgo, no paths of the machine that built it.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/manada ./cmd/manada

deps:
	@scripts/deps.sh run

# Two packages at a time; one after the other where they start real herds, which
# should not compete for two cores, but for the two longest, which mostly wait.
# 25 minutes for the slowest package.
test:
	@scripts/deps.sh test
	@[ "$$MANADA_SKIP_DOCKER" = 1 ] || scripts/deps.sh docker
	$(GO) vet ./...
	MANADA_POSTGRES_TESTS=1 $(GO) test -race -p 2 -timeout 25m $(RACED)
	$(GO) test -p 1 -run 'DoesNotAllocate|CostNoMemory' ./internal/proxy/classify
	$(GO) test -p 2 -timeout 20m $(REST)
	$(GO) test -p 2 -timeout 25m $(LONGEST)
	$(GO) test -p 1 -timeout 20m $(OTHERS)

check:
	$(GO) vet ./...
	$(GO) test -short ./...

# The licences of what is linked in.
notices:
	$(GO) run ./scripts/notices > THIRD-PARTY-NOTICES

# Failures in random order on one herd, 100 of them: about an hour.
chaos:
	@scripts/deps.sh test
	$(GO) test ./test/e2e -run Chaos -count=1 -long -timeout 5h -v

# The tests named TestTrust..., with their full numbers (test/trust).
trust:
	@scripts/deps.sh test
	MANADA_TRUST=1 $(GO) test -p 1 -run Trust -count=1 -timeout 5h -v ./...

# Tests that count allocations are left out by the build constraint !race.
race:
	@scripts/deps.sh test
	MANADA_SKIP_DOCKER=1 $(GO) test -race -p 1 -timeout 60m ./...

# PostgreSQL's own tests through 5431; in `make test`, too.
regress:
	@scripts/deps.sh test
	MANADA_POSTGRES_TESTS=1 $(GO) test ./internal/proxy -run Postgres -count=1 -timeout 30m -v

drivers:
	@scripts/deps.sh drivers
	MANADA_DRIVERS=1 $(GO) test ./test/drivers -count=1 -timeout 20m -v

# 100 switchovers and 40 crashes, then 20 switchovers with long transactions among the others.
proxy-soak:
	@scripts/deps.sh test
	$(GO) test ./test/soak -count=1 -timeout 4h -v -args -switchovers 100 -crashes 40 -half-hold 500ms -hold 1500ms
	$(GO) test ./test/soak -count=1 -timeout 2h -v -args -switchovers 20 -crashes 0 -longest 30s -hold 1800ms

# 10,000 clients of one host on an untouched configuration and 100 connections.
proxy-crowd:
	@scripts/deps.sh test
	MANADA_CROWD=10000,60s,100 $(GO) test ./internal/proxy -run 'TestCrowd$$' -count=1 -timeout 20m -v

# In `make test`, too, for a few seconds.
proxy-tagged:
	@scripts/deps.sh test
	MANADA_TAGGED=10m $(GO) test ./internal/proxy -run 'TestTaggedClients$$' -count=1 -timeout 40m -v

# The images of deploy/compose, of the program as it is here.
image: build
	@scripts/deps.sh docker
	@scripts/image.sh

# Part of `make test`, too; MANADA_SKIP_DOCKER=1 leaves it out on purpose.
guide:
	@scripts/deps.sh docker
	$(GO) test ./test/guide -count=1 -timeout 15m -v

demo: deps build
	@scripts/demo.sh

up: deps build
	@bin/manada up

down:
	@bin/manada down

clean:
	rm -rf bin
