# One of the services: docker_sdk_api, gui or inference_api. Built from the repository's root, by build_cpu.yml.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}

# Where packages come from, for machines with an index of their own; unset: pip's own.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1 PYTHONPATH=/opt/maskwright

COPY build/requirements/constraints.txt build/requirements/common.txt /opt/requirements/
RUN pip install -r /opt/requirements/common.txt

ARG SERVICE
COPY build/trim.py build/requirements/${SERVICE}.txt /opt/requirements/
# ONNX Runtime wants sympy for tools that no service runs.
RUN pip install -r /opt/requirements/${SERVICE}.txt && \
    python /opt/requirements/trim.py sympy mpmath

# The code comes last: a change in it builds in a second.
COPY contracts /opt/maskwright/contracts
COPY annotations /opt/maskwright/annotations
COPY runtimes /opt/maskwright/runtimes
COPY ${SERVICE} /opt/maskwright/${SERVICE}
COPY build/become_owner.py /opt/become_owner.py

ENV SERVICE=${SERVICE}
LABEL org.opencontainers.image.title="Maskwright: ${SERVICE}" org.opencontainers.image.licenses=Apache-2.0
WORKDIR /tmp
# Not USER: who owns the folders is known only where the container runs.
ENTRYPOINT ["python", "/opt/become_owner.py", "/checkpoints"]
CMD ["sh", "-c", "exec python -m $SERVICE"]
