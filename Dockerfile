# Tessera as an image: docker build -t tessera . && docker run --rm -p 8000:8000 tessera
# With the commit in its labels: docker build --build-arg REVISION="$(git rev-parse HEAD)" -t tessera .
# With CANN for Ascend NPUs: docker build --target ascend -t tessera-ascend . (see docs/ascend.md)
# A builder needs the same Python as its image: the wheel holds a C extension for exactly that version.
ARG PYTHON=3.11
# One for the chip: 310p and 910b have tags, the 310b has none and needs an image of your own.
ARG CANN_IMAGE=quay.io/ascend/cann:9.0.0-310p-openeuler24.03-py3.11
# What the labels say.
ARG VERSION=0.1.0
ARG REVISION=unknown

FROM python:${PYTHON}-slim AS builder
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml CMakeLists.txt README.md LICENSE ./
COPY engine engine
COPY models models
COPY app app
COPY client client
COPY tessera tessera
RUN python -m pip wheel --no-cache-dir --wheel-dir /wheels '.[grpc]'

# Built in CANN's image, whose C library is older than that of the builder above.
FROM ${CANN_IMAGE} AS ascend-builder
RUN command -v cc || { command -v dnf && dnf install -y gcc; } || { apt-get update && apt-get install -y gcc libc6-dev; }
WORKDIR /source
COPY pyproject.toml CMakeLists.txt README.md LICENSE ./
COPY engine engine
COPY models models
COPY app app
COPY client client
COPY tessera tessera
RUN python3 -m pip wheel --no-cache-dir --wheel-dir /wheels '.[grpc]'

FROM ${CANN_IMAGE} AS ascend
RUN --mount=type=bind,from=ascend-builder,source=/wheels,target=/wheels \
    python3 -m pip install --no-cache-dir --no-index --find-links=/wheels 'tessera-inference[grpc]'
COPY docker/healthcheck.py docker/ascend-entry.sh /opt/tessera/
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin tessera
USER 10001:10001
# The container's user reaches the devices through their group, HwHiAiUser: --group-add 1000.
ENV TESSERA_HOST=0.0.0.0 \
    TESSERA_BACKEND=ascend \
    TESSERA_MODELS=/models \
    TESSERA_CACHE_DIR=/tmp/tessera \
    TESSERA_DRAIN_SECONDS=8 \
    ASCEND_PROCESS_LOG_PATH=/tmp/ascend \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python3", "/opt/tessera/healthcheck.py"]
ENTRYPOINT ["/opt/tessera/ascend-entry.sh"]
CMD ["serve"]
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="Tessera for Ascend" \
    org.opencontainers.image.description="REST inference service for ResNet-50 that shows what operator optimisation buys" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

# Lists the packages of the image. It is mounted to be run there, and is not part of it.
FROM python:${PYTHON}-slim AS inventory
RUN python -m venv /inventory && /inventory/bin/python -m pip install --no-cache-dir 'cyclonedx-bom>=7.2,<8'
COPY pyproject.toml /inventory/

FROM python:${PYTHON}-slim
# The wheels are mounted, not copied: no layer carries them a second time.
RUN --mount=type=bind,from=builder,source=/wheels,target=/wheels \
    python -m pip install --no-cache-dir --no-index --find-links=/wheels 'tessera-inference[grpc]'
RUN --mount=type=bind,from=inventory,source=/inventory,target=/inventory \
    mkdir -p /usr/share/sbom \
    && /inventory/bin/cyclonedx-py environment --pyproject /inventory/pyproject.toml --mc-type application \
        --spec-version 1.6 --output-reproducible --validate --output-file /usr/share/sbom/tessera.cdx.json \
        "$(command -v python)"
COPY docker/healthcheck.py /opt/tessera/healthcheck.py
# Built here, so that a container starts at once and without network. The cache is all that the service's user may write
# to: a model that is mounted is built there.
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin tessera \
    && tessera models build --cache-dir /opt/tessera/cache \
    && chown -R 10001:10001 /opt/tessera/cache
USER 10001:10001
# Writable also where the root file system is not; a new volume begins with what the image has there.
VOLUME /opt/tessera/cache
# `docker stop` waits 10 seconds before it kills, and requests in flight must be answered by then.
# Some builds of ONNX Runtime send usage data to their maker unless told not to.
ENV TESSERA_HOST=0.0.0.0 \
    TESSERA_CACHE_DIR=/opt/tessera/cache \
    TESSERA_DRAIN_SECONDS=8 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "/opt/tessera/healthcheck.py"]
ENTRYPOINT ["tessera"]
CMD ["serve"]
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="Tessera" \
    org.opencontainers.image.description="REST inference service for ResNet-50 that shows what operator optimisation buys" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
