# `langnorm serve` on NVIDIA GPUs, by vLLM. From the folder of pyproject.toml:
#
#   docker build --file docker/cuda.Dockerfile --tag langnorm:cuda .
#   docker run --init --rm --gpus all --ipc host --publish 127.0.0.1:8000:8000 --volume langnorm-models:/models \
#       --env LANGNORM_API_KEY=secret langnorm:cuda Qwen/Qwen3-8B
#
# The CUDA libraries come with torch; the driver is that of the host.
FROM python:3.11-slim-bookworm

ENV HF_HOME=/models \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

# Kernels are compiled when they are first run.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 langnorm && install --directory --owner=langnorm --group=langnorm /models

WORKDIR /opt/langnorm
# constraints.txt is not for here: vLLM names the torch and the transformers that it was built for.
ARG VLLM=vllm==0.32.0
RUN pip install "${VLLM}" "ray[cgraph,default]"

COPY LICENSE README.md pyproject.toml ./
COPY integrations integrations
COPY langnorm langnorm
RUN pip install "${VLLM}" ".[serve]"

USER langnorm
WORKDIR /home/langnorm
VOLUME /models
EXPOSE 8000

# The server answers when the model is loaded, which is downloaded first: until then nothing counts as a failure.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30m --retries=3 \
    CMD ["python", "-c", "from urllib.request import *; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/health', timeout=4)"]

ENTRYPOINT ["langnorm", "serve", "--engine", "vllm", "--host", "0.0.0.0", "--port", "8000"]
CMD ["abacus"]
