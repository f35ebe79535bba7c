# syntax=docker/dockerfile:1
#
# Answer, stream and serve from a bundle, without torch:
#   docker build --target runtime -t mirasol:runtime .
#   docker run -p 8000:8000 -v "$PWD/build/bundle:/bundle:ro" mirasol:runtime
# Everything, torch for the CPU or, with --build-arg TORCH=cuda, for CUDA:
#   docker build -t mirasol .
#   docker run -v mirasol:/mirasol mirasol make demo
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN useradd --create-home --uid 1000 mirasol

FROM base AS wheel
WORKDIR /source
COPY LICENSE README.md pyproject.toml requirements.lock ./
COPY src src
RUN pip wheel --no-deps --constraint requirements.lock --wheel-dir /wheels .

FROM base AS runtime
COPY requirements.lock /tmp/
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --constraint /tmp/requirements.lock "$(echo /wheels/*.whl)[serve]"
USER 1000
WORKDIR /home/mirasol
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=5)"]
CMD ["mirasol", "serve", "--bundle", "/bundle", "--host", "0.0.0.0"]

# The last stage is the one that is built by default. git and make: DVC's experiments and the Makefile ask for them.
FROM base AS full
ARG TORCH=cpu
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /mirasol
RUN chown mirasol:mirasol /mirasol
USER 1000
COPY --chown=mirasol:mirasol . .
RUN make setup TORCH="${TORCH}" \
    && git init --quiet \
    && git config user.name mirasol \
    && git config user.email mirasol@localhost \
    && git add --all \
    && git commit --quiet --message "The image's sources"
ENV PATH=/mirasol/.venv/bin:$PATH
CMD ["mirasol", "--help"]
