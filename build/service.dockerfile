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
# ONNX Runtime wants sympy for tools that no service runs. Of Plotly's package the pages serve one script; the rest of its 60 MB
# stays out of the layer.
RUN pip install -r /opt/requirements/${SERVICE}.txt && \
    python /opt/requirements/trim.py sympy mpmath && \
    if [ "$SERVICE" = gui ]; then \
      find "$(python -c 'import os, plotly; print(os.path.dirname(plotly.__file__))')" -type f ! -name plotly.min.js ! -name __init__.py -delete; \
    fi

# The code comes last: a change in it builds in a second.
COPY contracts /opt/maskwright/contracts
COPY annotations /opt/maskwright/annotations
COPY runtimes /opt/maskwright/runtimes
COPY ${SERVICE} /opt/maskwright/${SERVICE}
COPY build/become_owner.py /opt/become_owner.py

ENV SERVICE=${SERVICE}
WORKDIR /tmp
# Not USER: who owns the folders is known only where the container runs.
ENTRYPOINT ["python", "/opt/become_owner.py", "/checkpoints"]
CMD ["sh", "-c", "exec python -m $SERVICE"]
