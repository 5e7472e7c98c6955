# Trainings with GluonCV on MXNet, on the CPU or (CUDA=1) on GPUs too. The launcher says what to run: python -m training_api <folder>.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}

# MXNet is built against these of Debian's libraries, which a slim image lacks.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgfortran5 libquadmath0 libgomp1 \
 && rm -rf /var/lib/apt/lists/*

ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1 PYTHONPATH=/opt/maskwright:/opt/no_driver

# CUDA comes from wheels, so CPU and GPU images have one base; the compiler is gone before its layer ends.
ARG CUDA=
COPY build/no_driver.c build/no_driver.py build/requirements/gluon-cuda.txt /opt/no_driver/
RUN if [ -n "$CUDA" ]; then \
      pip install --no-deps -r /opt/no_driver/gluon-cuda.txt \
      && cd "$(python -c 'import importlib.util as u; print(u.find_spec("nvidia").submodule_search_locations[0])')" \
      && rm -rf ./*/include && ls -d "$PWD"/*/lib >/etc/ld.so.conf.d/cuda-wheels.conf && ldconfig \
      && apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
      && cd /opt/no_driver && gcc -shared -fPIC -Wl,-soname,libcuda.so.1 -o libcuda.so.1 no_driver.c && mv no_driver.py sitecustomize.py \
      && apt-get purge -y --auto-remove gcc libc6-dev && rm -rf /var/lib/apt/lists/*; \
    fi

COPY build/trim.py build/requirements/gluon.txt build/requirements/gluon-no-deps.txt /opt/requirements/
RUN if [ -n "$CUDA" ]; then sed -i 's/^mxnet==/mxnet-cu117==/' /opt/requirements/gluon.txt; fi \
 && pip install -r /opt/requirements/gluon.txt \
 && pip install --no-deps -r /opt/requirements/gluon-no-deps.txt \
 && python /opt/requirements/trim.py

# MXNet 1.9.1 has oneDNN (MKL) in it, which may be switched off: 0 takes about twice the time on any processor that oneDNN knows.
# A build without it exists for 1.8 alone, which cannot write the networks as ONNX.
ARG ONEDNN=1
ENV MXNET_MKLDNN_ENABLED=${ONEDNN} MXNET_STORAGE_FALLBACK_LOG_VERBOSE=0

COPY contracts /opt/maskwright/contracts
COPY annotations /opt/maskwright/annotations
COPY runtimes /opt/maskwright/runtimes
COPY training_api /opt/maskwright/training_api
# Weights that training_api/assets/networks.json selects come with the image: none as it is (docs/weights.md).
RUN python -m training_api.weights --engine gluon --bake /opt/maskwright/training_api/assets/networks.json --to /opt/maskwright/weights

LABEL org.opencontainers.image.title="Maskwright: trainings with GluonCV" org.opencontainers.image.licenses=Apache-2.0
WORKDIR /tmp
ENTRYPOINT ["python"]
