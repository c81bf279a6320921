# `langnorm serve` without a GPU, by transformers. From the folder of pyproject.toml:
#
#   docker build --file docker/cpu.Dockerfile --tag langnorm:cpu .
#   docker run --init --rm --publish 127.0.0.1:8000:8000 --volume langnorm-models:/models \
#       --env LANGNORM_API_KEY=secret langnorm:cpu Qwen/Qwen3-0.6B
#
# torch has builds for CPUs that are gigabytes smaller than the usual ones: `--build-arg PIP_EXTRA_INDEX_URL=...` names the
# index in which PyTorch offers them, and pip then takes them from there.
FROM python:3.11-slim-bookworm

ENV HF_HOME=/models \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

RUN useradd --create-home --uid 1000 langnorm && install --directory --owner=langnorm --group=langnorm /models

WORKDIR /opt/langnorm
ARG PIP_EXTRA_INDEX_URL
# By itself, so that a change of langnorm does not download it again.
COPY constraints.txt .
RUN pip install --constraint constraints.txt torch

COPY LICENSE README.md pyproject.toml ./
COPY integrations integrations
COPY langnorm langnorm
RUN pip install --constraint constraints.txt ".[gguf,serve]"

USER langnorm
WORKDIR /home/langnorm
VOLUME /models
EXPOSE 8000

# The server answers when the model is loaded, which is downloaded first: until then nothing counts as a failure.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30m --retries=3 \
    CMD ["python", "-c", "from urllib.request import *; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/health', timeout=4)"]

ENTRYPOINT ["langnorm", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["abacus"]
