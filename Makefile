# make install | test | demo        PADDLE=3.3.1 takes another Paddle, in an environment of its own
# make support                       tries every detector on both versions and writes docs/support.md
# make docs                          builds the documentation as a site, without a warning, into site/
PADDLE ?= 2.6.2
PYTHON ?= python3.11
PADDLE2ONNX := $(if $(filter 2.%,$(PADDLE)),1.3.1,2.1.0)
VENV := $(if $(filter 2.6.2,$(PADDLE)),.venv,.venv-$(PADDLE))
PY := $(VENV)/bin/python
JOBS ?= 2
READY := $(VENV)/installed-$(PADDLE)

.PHONY: install test demo docs support support-here clean

install: $(READY)

$(READY): constraints.txt setup.py
	@echo "ppkd: installing Paddle $(PADDLE) and what it needs into $(VENV) (about a minute)"
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --disable-pip-version-check --no-deps -r constraints.txt paddlepaddle==$(PADDLE) \
		paddle2onnx==$(PADDLE2ONNX)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Tests in JOBS processes, each on one core; a file's tests stay together and share what they have built.
test: $(READY)
	$(PY) -m pytest -n $(JOBS) --dist loadfile

demo: $(READY)
	$(PY) tools/demo.py --teacher $(or $(TEACHER),shipped)

docs: $(READY)
	$(PY) -m mkdocs build --strict

support:
	$(MAKE) support-here PADDLE=2.6.2
	$(MAKE) support-here PADDLE=3.3.1

support-here: $(READY)
	$(PY) tools/support_table.py

clean:
	rm -rf .venv .venv-* output dataset build site *.egg-info
