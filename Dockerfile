# affuse in a container, from its wheel. As it stands for NVIDIA GPUs, which need the host's driver and its container
# toolkit; for the CPU alone, a few GB smaller, TORCH_INDEX names the index of PyTorch's CPU wheels:
#
#   docker build --tag affuse .
#   docker build --tag affuse:cpu --build-arg TORCH_INDEX=<the index that pytorch.org names for CPU> .
#   docker run --rm --gpus all --volume "$PWD":/work affuse extract --video-dir videos --out store
#
# Downloaded weights are kept in the volume /cache.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
ARG TORCH_INDEX=""
ARG EXTRAS=demo,parquet,timm
COPY constraints.txt /tmp/constraints.txt
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision; \
    fi
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    if [ -z "$TORCH_INDEX" ]; then set -- --constraint /tmp/constraints.txt; fi; \
    pip install --no-cache-dir "$@" "$(echo /wheels/affuse-*.whl)[${EXTRAS}]"
RUN useradd --create-home affuse && mkdir /cache /work && chown affuse /cache /work
USER affuse
ENV XDG_CACHE_HOME=/cache
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["affuse"]
CMD ["--help"]
