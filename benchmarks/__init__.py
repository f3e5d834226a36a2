"""How fast nkform is, beside iproute2 and IfState. `make bench` runs bench.py; manual: docs/benchmarks.md."""
