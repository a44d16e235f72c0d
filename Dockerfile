# Two images of one source:
#   docker build --target client -t mistral-swarm:client .   gateway, seeder and every other verb that needs no torch
#   docker build --target node   -t mistral-swarm:node .     the same, and `swarm node`
#
# pip takes its index from the build arguments. On Linux the plain build of torch brings several GB of CUDA libraries;
# for a node that computes on the CPU name an index of PyTorch's CPU builds:
#   docker build --target node --build-arg PIP_EXTRA_INDEX_URL=… -t mistral-swarm:node .
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS build-client
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/swarm
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY swarm swarm
COPY node node
RUN /opt/swarm/bin/pip install ".[gateway]"

FROM build-client AS build-node
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN /opt/swarm/bin/pip install ".[gateway,node]"

FROM python:${PYTHON_VERSION}-slim AS runtime
# /data: keys, fetched weights, the ledger. /releases: what is seeded, in named volumes or mounted from outside.
RUN useradd --uid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin swarm \
    && install -d -o swarm -g swarm -m 0750 /data /releases
ENV PATH=/opt/swarm/bin:$PATH HOME=/data SWARM_DATA_DIR=/data PYTHONUNBUFFERED=1
WORKDIR /data
VOLUME ["/data"]
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["swarm"]
CMD ["--help"]

FROM runtime AS node
COPY --from=build-node /opt/swarm /opt/swarm

FROM runtime AS client
COPY --from=build-client /opt/swarm /opt/swarm
