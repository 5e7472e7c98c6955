# Trainings with GluonCV on MXNet, on the CPU. The launcher says what to run: python -m training_api <job folder>.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}

# MXNet is built against these of Debian's libraries, which a slim image lacks.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgfortran5 libquadmath0 libgomp1 \
 && rm -rf /var/lib/apt/lists/*

ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1 PYTHONPATH=/opt/maskwright

COPY build/trim.py build/requirements/gluon.txt build/requirements/gluon-no-deps.txt /opt/requirements/
RUN pip install -r /opt/requirements/gluon.txt \
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

WORKDIR /tmp
ENTRYPOINT ["python"]
