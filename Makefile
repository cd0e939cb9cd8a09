# make install | test | demo        the first of Python 3.11, 3.13, 3.12 on this machine, and the Paddle that goes with it
#                                    PADDLE=3.3.1 takes another Paddle, of Paddle 3 with the newest Python that there is;
#                                    PYTHON=python3.11 another Python: each combination has an environment of its own
# make test-host PPDET=path          the tests against a clone of PaddleDetection
# make support                       tries every detector on both versions and writes docs/support.md
# make docs                          builds the documentation as a site, without a warning, into site/
PYENV := $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions
PYTHONS := $(or $(PYTHON),$(addprefix python,$(if $(filter 3.%,$(PADDLE)),3.13 3.12 3.11,\
	$(if $(PADDLE),3.11 3.12 3.13,3.11 3.13 3.12))))
override PYTHON := $(or $(shell for n in $(PYTHONS); do for p in $$n $(PYENV)/$${n#python}*/bin/$$n; do \
	$$p -c "" 2>/dev/null && echo $$p && exit; done; done),$(PYTHON))
MINOR := $(shell $(PYTHON) -c "import sys; print('%d%d' % sys.version_info[:2])" 2>/dev/null)
OLD := $(filter 311,$(MINOR))
PADDLE ?= $(if $(OLD),2.6.2,3.3.1)
CONSTRAINTS := $(if $(OLD),constraints.txt,constraints-py313.txt)
# None of Paddle 3 is made for Python 3.13.
PADDLE2ONNX := $(if $(filter 313,$(MINOR)),,paddle2onnx==$(if $(filter 2.%,$(PADDLE)),1.3.1,2.1.0))
VENV := .venv$(if $(filter 311,$(MINOR)),,-py$(MINOR))$(if $(filter 311-2.6.2 312-3.3.1 313-3.3.1,$(MINOR)-$(PADDLE)),,-$(PADDLE))
PY := $(VENV)/bin/python
JOBS ?= 2
READY := $(VENV)/installed-$(PADDLE)

.PHONY: install test test-host demo docs support support-here clean python clone

install: $(READY)
	@echo "ppkd: ready: $$($(PY) --version), Paddle $(PADDLE); source $(VENV)/bin/activate, then for example ppkd distill FOLDER"

python:
	@case "$(MINOR)" in 311|312|313) ;; "") echo "ppkd: needs Python 3.11, 3.12 or 3.13, and found none" \
		"$(if $(PYTHON),(PYTHON=$(PYTHON) does not run),)" >&2; exit 1 ;; *) echo "ppkd: $(PYTHON) is $(shell $(PYTHON) -V 2>&1);" \
		"needs 3.11, 3.12 or 3.13 (with 3.10: pip install \".[paddledet,cpu]\")" >&2; exit 1 ;; esac
	@case "$(MINOR)-$(PADDLE)" in 313-2.*) echo "ppkd: Paddle $(PADDLE) has no release for Python 3.13: PYTHON=python3.11," \
		"or PADDLE=3.3.1" >&2; exit 1 ;; esac

$(READY): $(CONSTRAINTS) setup.py | python
	@echo "ppkd: installing Paddle $(PADDLE) and what it needs into $(VENV) (about a minute)"
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --disable-pip-version-check --no-deps -r $(CONSTRAINTS) paddlepaddle==$(PADDLE) $(PADDLE2ONNX)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Tests in JOBS processes, each on one core; a file's tests stay together and share what they have built.
test: $(READY)
	$(PY) -m pytest -n $(JOBS) --dist loadfile

clone:
	@test -f "$(PPDET)/ppdet/__init__.py" || { echo "make test-host PPDET=path/to/PaddleDetection: no ppdet in" \
		"'$(PPDET)'" >&2; exit 1; }

test-host: clone $(READY)
	PYTHONPATH="$$(cd "$(PPDET)" && pwd)" $(PY) -m pytest -n $(JOBS) --dist loadfile

demo: $(READY)
	$(PY) tools/demo.py --teacher $(or $(TEACHER),shipped)

docs: $(READY)
	$(PY) -m mkdocs build --strict

support:
	$(MAKE) support-here PYTHON=python3.11 PADDLE=2.6.2
	$(MAKE) support-here PYTHON=python3.11 PADDLE=3.3.1

support-here: $(READY)
	$(PY) tools/support_table.py

clean:
	rm -rf .venv .venv-* output dataset build site *.egg-info
