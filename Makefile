# For development, in an environment with `pip install -e '.[test]'`. CI (.ci/run) makes fresh environments instead.
.PHONY: quick check coverage lint types tests audit

quick: lint types ## Seconds: format, lint, types, the import rules.
	python -m pytest tests/test_layers.py tests/cimc/test_units.py

check: lint types tests ## What CI does, without fresh environments: no wheel, no lowest versions.

lint: ## Format and lint: nothing is changed; `ruff format . && ruff check --fix .` mends what it can.
	ruff format --check .
	ruff check .

types: ## The packages strictly, the tests with every body checked.
	mypy

tests: ## All tests on two cores: about 12 minutes.
	python -m pytest -n 2

coverage: ## All tests, and which lines no test reaches.
	python -m pytest -n 2 --cov --cov-report=term-missing:skip-covered

# --strict: without it pip-audit says "no known vulnerabilities" of what the advisory database did not answer for.
audit: ## Known faults of the releases in .ci/constraints.txt; needs the network and `pip install pip-audit`.
	@command -v pip-audit >/dev/null || { echo "pip-audit is not installed: pip install pip-audit"; exit 1; }
	pip-audit --strict --disable-pip --no-deps -r .ci/constraints.txt
