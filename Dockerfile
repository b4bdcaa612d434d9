# Tessera as an image: docker build -t tessera . && docker run --rm -p 8000:8000 tessera
# Both stages need the same Python: the wheel holds a C extension for exactly that version.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS builder
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml CMakeLists.txt README.md ./
COPY engine engine
COPY models models
COPY app app
RUN python -m pip wheel --no-cache-dir --wheel-dir /wheels .

FROM python:${PYTHON}-slim
# The wheels are mounted, not copied: no layer carries them a second time.
RUN --mount=type=bind,from=builder,source=/wheels,target=/wheels \
    python -m pip install --no-cache-dir --no-index --find-links=/wheels tessera-inference
# Built here, so that a container starts at once, without network and on a read-only file system.
RUN tessera models build --cache-dir /opt/tessera/cache
COPY docker/healthcheck.py /opt/tessera/healthcheck.py
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin tessera
USER 10001:10001
# `docker stop` waits 10 seconds before it kills, and requests in flight must be answered by then.
# Some builds of ONNX Runtime send usage data to their maker unless told not to.
ENV TESSERA_HOST=0.0.0.0 \
    TESSERA_PORT=8000 \
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
