# The whole interface of the repository: make serve, make test, make bench. Everything lives in .venv and build/.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A change to these reinstalls the package, which recompiles the C core.
SOURCES := pyproject.toml CMakeLists.txt $(shell find engine/csrc -type f)
# Twice quiet: errors only. Its warnings are about its own configuration.
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check

SERVING := build/serving
LOWEST := build/lowest
PYTHONS := build/pythons
RAY := build/ray

.PHONY: serve test accuracy bench bench-serving bench-kernels tune peers quantisers test-export chaos soak fuzz image-check kserve page lint types native-test native-plain native-asan native-tsan native-aarch64 descriptors lowest pythons generated-client ray python-test format clean

serve: $(VENV)/installed
	@$(BIN)/tessera serve

# What compiles and what checks one file after another, two at a time, each with its output in one piece; then the Python tests.
test: $(VENV)/test-installed
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target types native-tsan native-asan native-plain native-aarch64 lint
	@$(MAKE) --no-print-directory python-test

# All of Imagenette's validation photos, of which the tests take every tenth.
accuracy: $(VENV)/test-installed
	TESSERA_ALL_PHOTOS=1 $(BIN)/python -m pytest -s tests/integration/test_accuracy.py

bench: $(VENV)/installed
	$(BIN)/tessera bench

# Every micro-kernel of the table on ResNet-50's layer classes.
bench-kernels: $(VENV)/test-installed
	$(call native,plain,,all)
	build/native-plain/benchmarks/bench_kernels

tune: $(VENV)/test-installed
	$(call native,plain,,all)
	build/native-plain/benchmarks/bench_kernels --tune

# Against ONNX Runtime and OpenVINO; installs them and quantises their models on first use.
peers: $(VENV)/installed
	$(PIP) --editable '.[peers]'
	$(BIN)/python -m benchmarks.peers $(PEERS)

# Over HTTP against LitServe, mosec, BentoML and Ray Serve around OpenVINO int8, each in an environment of its own.
bench-serving: $(VENV)/installed $(SERVING)/installed
	$(PIP) --editable '.[peers]'
	$(BIN)/python -m benchmarks.serving --peers $(SERVING) $(SERVING_FLAGS)

$(SERVING)/installed:
	for peer in litserve mosec bentoml 'ray[serve]'; do \
		folder=$(SERVING)/$${peer%%[*}; \
		$(PYTHON) -m venv $$folder && $$folder/bin/python -m pip install --quiet --disable-pip-version-check \
			"$$peer" openvino numpy pillow || exit 1; \
	done
	touch $@

# Damaged model files for ten minutes (FUZZ sets the seconds), 100,000 damaged images, and an hour's worth of generated
# requests against a real server; short versions are in the tests.
fuzz: $(VENV)/test-installed
	$(BIN)/python -m tests.fuzz.readers $(or $(FUZZ),600)
	$(BIN)/python -m tests.fuzz.images
	$(BIN)/python -m tests.fuzz.requests

# Ten minutes of random kill -9 under load against --frontends 2; every answer is compared with the right one.
chaos: $(VENV)/test-installed
	$(BIN)/python -m tests.chaos.long $(CHAOS)

# A million requests or an hour of mixed load; every answer is compared, memory must stay level.
soak: $(VENV)/test-installed
	$(BIN)/python -m tests.chaos.soak $(SOAK)

# The image, built and run without a daemon over a base of Debian's packages; needs root, debootstrap, buildah, podman, runc.
image-check: $(VENV)/test-installed
	$(PIP) 'cyclonedx-python-lib[json-validation]>=11'
	$(BIN)/python -m tests.image.check $(IMAGE_FLAGS)

# Against real torch, torchvision and timm: a large download.
test-export: $(VENV)/test-installed
	$(PIP) --editable '.[export]'
	$(BIN)/python -m pytest tests/unit/models/importing/test_export.py tests/unit/models/test_torch_graph.py tests/unit/models/test_fine_tuning.py

# Accuracy of our quantiser against ONNX Runtime's and NNCF's, on photos that none of them saw.
quantisers: $(VENV)/installed
	$(PIP) --editable '.[peers]'
	$(BIN)/python -m benchmarks.quantisers

# After a change to app/web/src; the built page is committed, because a newcomer has no Node.
page:
	cd app/web && npm ci --silent && npm run --silent build

# After a change to a .proto file.
descriptors: $(VENV)/test-installed
	$(BIN)/python -m grpc_tools.protoc -Iapp/oip/grpc/proto --descriptor_set_out=app/oip/grpc/proto/descriptors.binpb \
		$(notdir $(wildcard app/oip/grpc/proto/*.proto))

# On the lowest versions that pyproject.toml admits, in an environment of their own: tests of what other packages do for us
# (HTTP, forms, JSON, images, gRPC, settings, ONNX and its runtime). Left out is what runs on our own code alone, as `make test`
# has run it; test_grpc_schema.py needs the newest protobuf, test_onnx_conformance.py the newest onnx, and test_package.py pip.
OWN_LOGIC := test_cost test_grpc_schema test_queue test_queue_states test_scheduler test_simulation test_admission test_selection
LOWEST_TESTS := tests/contract tests/unit/app $(OWN_LOGIC:%=--ignore tests/unit/app/%.py) --ignore tests/contract/test_readme.py --ignore tests/contract/test_package.py tests/integration/test_http_protocol.py \
	tests/unit/graph/test_operators.py tests/unit/graph/test_windows.py tests/unit/graph/test_reader.py \
	tests/unit/graph/test_writer.py tests/unit/models/importing/test_importer.py tests/unit/models/formats/test_checkpoint.py
lowest: $(VENV)/test-installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --extra grpc --extra tracing --python $(LOWEST)/bin/python \
		--output-file $(LOWEST)/versions.txt pyproject.toml > /dev/null
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --requirement $(LOWEST)/versions.txt \
		cmake hypothesis jsonschema-rs ninja packaging pytest pytest-timeout pytest-xdist pyyaml scikit-build-core
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --no-deps --no-build-isolation --editable .
	$(LOWEST)/bin/python -m pytest -n 2 --dist loadfile -m 'not alone' $(LOWEST_TESTS)

# A client made of the OpenAPI document by openapi-python-client, which has an environment of its own; fails at a warning.
generated-client: $(VENV)/test-installed
	$(PYTHON) -m venv build/generator
	build/generator/bin/python -m pip install --quiet --disable-pip-version-check openapi-python-client
	$(BIN)/python -c 'import json; from tessera.app.main import create_app; print(json.dumps(create_app().openapi()))' > build/openapi.json
	PATH="$(CURDIR)/$(BIN):$$PATH" build/generator/bin/openapi-python-client generate --path build/openapi.json \
		--output-path build/client --overwrite --fail-on-warning

# KServe's own models take the files of deploy/kserve, and its clients are answered. They have an environment of their own, of
# 450 MB.
kserve: $(VENV)/test-installed
	$(PYTHON) -m venv build/kserve
	build/kserve/bin/python -m pip install --quiet --disable-pip-version-check 'kserve>=0.21,<0.22'
	$(BIN)/python -m pytest tests/integration/test_kserve.py

# deploy/ray on a real cluster of this machine: Ray is large, and wants the newest of some packages.
ray: $(VENV)/test-installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(RAY)
	$(BIN)/uv pip install --quiet --python $(RAY)/bin/python --editable . 'ray[data,serve]>=2.60' \
		hypothesis pytest pytest-timeout pyyaml
	$(RAY)/bin/python -m pytest tests/ray

# On every Python of the classifiers that is on this machine, each in an environment of its own: the service, and some of what
# differs between versions of Python and of the packages that they get.
PYTHONS_TESTS := tests/integration/test_classify.py tests/unit/engine/test_session.py tests/unit/engine/test_operators.py \
	tests/unit/app/test_uvicorn.py tests/unit/app/test_settings.py tests/unit/app/test_dispatch.py tests/unit/app/test_protocol.py \
	tests/unit/app/test_oip.py tests/unit/app/test_connections.py tests/contract/test_lower_bounds.py
pythons: $(VENV)/test-installed
	@export PYENV_VERSION=$$(pyenv versions --bare 2>/dev/null | paste -sd:); \
	for version in $$(sed -n 's/.*"Programming Language :: Python :: \(3\.[0-9]*\)".*/\1/p' pyproject.toml); do \
		found=$$(python$$version -c 'import sys; print(sys.executable)' 2>/dev/null) || { echo "no python$$version here"; continue; }; \
		echo "python$$version"; \
		$(BIN)/uv venv --quiet --clear --python $$found $(PYTHONS)/$$version && \
		$(BIN)/uv pip install --quiet --python $(PYTHONS)/$$version/bin/python --editable '.[grpc,tracing]' \
			hypothesis packaging pytest pytest-timeout pyyaml && \
		$(PYTHONS)/$$version/bin/python -m pytest --quiet $(PYTHONS_TESTS) || exit 1; \
	done

lint: $(VENV)/test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test-installed
	$(BIN)/mypy

# Three files at a time on two cores, since many wait for servers, but for those that load the machine.
python-test: $(VENV)/test-installed
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m 'not alone'
	$(BIN)/python -m pytest -m alone

# The C core without Python: plain, under AddressSanitizer and UBSan, and the thread pool under ThreadSanitizer.
native-test: native-plain native-asan native-tsan native-aarch64

native-plain: $(VENV)/test-installed
	$(call native,plain,,all)
	cd build/native-plain && $(CURDIR)/$(BIN)/ctest --output-on-failure

native-asan: $(VENV)/test-installed
	$(call native,asan,address;undefined,tests/all)
	cd build/native-asan && $(CURDIR)/$(BIN)/ctest --output-on-failure

native-tsan: $(VENV)/test-installed
	$(call native,tsan,thread,test_threads test_conv)
	cd build/native-tsan && tests/test_threads && tests/test_conv 30

# The same tests for 64-bit Arm under qemu, where its cross compiler and qemu-user are installed; says so where not.
native-aarch64: $(VENV)/test-installed
	env -u MAKEFLAGS tests/native/run_aarch64.sh $(CURDIR)/$(BIN)

# native(name, sanitizers, targets). Without make's flags, by which ninja would look for a job server that it cannot use.
define native
	$(BIN)/cmake -S . -B build/native-$(1) -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DTESSERA_PYTHON=OFF \
		-DTESSERA_TESTS=ON "-DTESSERA_SANITIZE=$(2)" > /dev/null
	env -u MAKEFLAGS $(BIN)/cmake --build build/native-$(1) --target $(3) > build/native-$(1)/build.log || { cat build/native-$(1)/build.log; exit 1; }
endef

format: $(VENV)/test-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Tessera needs Python 3.10 or newer; try make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# An editable installation knows the modules that there were when it was made: it is made again when others come or go.
$(VENV)/modules: $(VENV)/created always
	@find app client engine models -name node_modules -prune -o -name '*.py' -print | LC_ALL=C sort > $@.now
	@if cmp -s $@.now $@; then rm $@.now; else mv $@.now $@; fi

.PHONY: always
always:

$(VENV)/installed: $(VENV)/modules $(SOURCES)
	@echo "Installing Tessera into $(VENV) and compiling its C core (about a minute the first time)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/test-installed: $(VENV)/installed
	$(PIP) --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build
