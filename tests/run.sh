#!/bin/sh
# All that decides: lint, types, layers, stubs, then every test. Called by `make test`.
set -eu
make --no-print-directory lint
exec .venv/bin/pytest -q -p no:cacheprovider --hypothesis-profile=ci tests
