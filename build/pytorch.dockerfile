# Trainings with PyTorch, and with majority, on the CPU or on GPUs too. The launcher says what to run: python -m training_api <folder>.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}

# Where packages come from. An index with PyTorch's CPU builds in PIP_EXTRA_INDEX_URL saves gigabytes of CUDA.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1 PYTHONPATH=/opt/maskwright

# Headers and tests of PyTorch are for those who compile against it. CUDA=1 takes the index's own build, with CUDA in wheels beside it
# (=== is that build alone); otherwise any build of the release does, and pip prefers a CPU build where it can have one.
ARG CUDA=
COPY build/requirements/torch.txt /opt/requirements/
RUN pip install ${CUDA:+$(sed -n 's/^torch==/torch===/p' /opt/requirements/torch.txt)} -r /opt/requirements/torch.txt \
 && cd "$(python -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')" \
 && rm -rf include test share

COPY build/trim.py build/requirements/constraints.txt build/requirements/pytorch.txt build/requirements/pytorch-no-deps.txt /opt/requirements/
RUN pip install -r /opt/requirements/pytorch.txt \
 && pip install --no-deps -r /opt/requirements/pytorch-no-deps.txt \
 && python /opt/requirements/trim.py

COPY contracts /opt/maskwright/contracts
COPY annotations /opt/maskwright/annotations
COPY runtimes /opt/maskwright/runtimes
COPY training_api /opt/maskwright/training_api
# Weights that training_api/assets/networks.json selects come with the image: none as it is (docs/weights.md).
RUN python -m training_api.weights --engine pytorch --bake /opt/maskwright/training_api/assets/networks.json --to /opt/maskwright/weights

LABEL org.opencontainers.image.title="Maskwright: trainings with PyTorch" org.opencontainers.image.licenses=Apache-2.0
WORKDIR /tmp
ENTRYPOINT ["python"]
