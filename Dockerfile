# fastres in a container, for a CPU, or on NVIDIA's base for a GPU:
#
#   docker build -t fastres .
#   docker build -t fastres-cuda --build-arg BASE=nvidia/cuda:13.0.1-devel-ubuntu24.04 .
#
# Nobody has built either yet: there was no Docker daemon where this was written. tests/whole/test_container.py reads
# every line, and runs the RUN lines with what reaches outside replaced.

ARG BASE=python:3.11-slim
FROM ${BASE}

# What pip is asked for first, by name: a torch without its torchvision is not what we want. A line of your own, such as
# one for a torch without CUDA's libraries, makes the image smaller.
ARG TORCH="torch torchvision"
ARG EXTRAS=ffcv,dali,search,dashboard,timm,onnx

# FFCV's libraries, the C compiler that Triton and torch.compile call, and Python with its headers where the base has none
COPY .ci/system-libraries /src/.ci/system-libraries
RUN bash /src/.ci/system-libraries && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/fastres/bin:$PATH PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/fastres && pip install --upgrade pip setuptools wheel && pip install ${TORCH}

COPY setup.py pyproject.toml README.md LICENSE /src/
COPY fastres /src/fastres
COPY preprocess /src/preprocess
# the base first: FFCV's build imports the numpy that comes with it
RUN pip install /src && pip install --no-build-isolation "/src${EXTRAS:+[$EXTRAS]}"

# Any user may write here, so that `docker run --user` works. Caches: compiled kernels, pretrained weights.
ENV HOME=/work USER=fastres XDG_CACHE_HOME=/work/cache
RUN useradd --home-dir /work fastres && mkdir -p /work/packed /work/runs /work/cache && chmod -R 1777 /work
USER fastres
WORKDIR /work
VOLUME ["/work/packed", "/work/runs", "/work/cache"]

ENTRYPOINT ["fastres"]
CMD ["--help"]
