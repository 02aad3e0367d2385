# Headstart in a container:
#   docker build -t headstart .
#   docker build -t headstart:cuda --build-arg BASE=nvidia/cuda:12.8.1-base-ubuntu24.04 .
#   docker run --rm -v "$PWD:/work" headstart pretrain photos/ --out runs/photos
# With a CUDA base add `--gpus all`. BASE is any Debian or Ubuntu whose Python is 3.11 or newer. PyTorch's usual wheels bring
# CUDA's libraries along; for an image without them let TORCH_INDEX be the address of PyTorch's own index of CPU wheels.
ARG BASE=python:3.13-slim
FROM ${BASE}
ARG TORCH_INDEX=

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# A base with a Python of its own keeps it; the versions of Debian's packages are the base's.
# hadolint ignore=DL3008
RUN if ! command -v python3 > /dev/null; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends python3 python3-venv \
        && rm -rf /var/lib/apt/lists/*; \
    fi \
    && python3 -m venv /opt/headstart
ENV PATH=/opt/headstart/bin:$PATH PYTHONSAFEPATH=1

WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} ".[timm]" \
    && rm -rf /source/*

RUN useradd --create-home --uid 10001 headstart
USER 10001
WORKDIR /work
ENTRYPOINT ["headstart"]
CMD ["--help"]
