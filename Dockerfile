# affuse in a container, from its wheel. The same image computes on NVIDIA GPUs, which need the host's driver and its
# container toolkit (`--gpus all`), and without any on the CPU:
#
#   docker build --tag affuse .
#   docker run --rm --volume "$PWD":/work affuse extract --video-dir videos --out store
#
# Downloaded weights are kept in the volume /cache.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
ARG EXTRAS=demo,parquet,timm
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install --no-cache-dir --constraint /constraints.txt "$(echo /wheels/affuse-*.whl)[${EXTRAS}]"
RUN useradd --create-home affuse && mkdir /cache /work && chown affuse /cache /work
USER affuse
ENV XDG_CACHE_HOME=/cache
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["affuse"]
CMD ["--help"]
