# What a person runs. The same steps as CI: see .ci/run.
.PHONY: check test lint race fuzz slow long release build fmt

check:
	bash .ci/run

build:
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/dunlin ./cmd/dunlin-bench ./cmd/dunlin-release

test lint race fuzz slow long release:
	bash .ci/run $@

fmt:
	go tool -modfile=.ci/tools.mod gofumpt -w cmd config discovery gossip chain internal
