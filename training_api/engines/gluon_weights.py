"""Weights from elsewhere into a network of the gluon engine: GluonCV's model zoo, classifiers, earlier models."""

import warnings
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import mxnet as mx
    from gluoncv.model_zoo import model_store

from contracts.errors import Invalid
from contracts.networks import Network
from contracts.weights import GLUON_BACKBONES, licence_of, zoo_names
from training_api.downloads import Source
from training_api.engines import Start

OWN_LAYERS = ("head.", "psp_head.", "conv_sub", "auxlayer.")
"""What the names begin with of the layers that GluonCV's networks put on their backbone."""


def sources_of(row: Network) -> list[Source]:
    """The zoo's weights of a row: zips with one .params file, whose SHA-1 GluonCV knows."""
    sources = []
    for name in zoo_names(row):
        file = f"{name}-{model_store.short_hash(name)}"
        address = model_store._url_format.format(repo_url=model_store.apache_repo_url, file_name=file)
        digest = f"sha1:{model_store._model_sha1[name]}"
        sources.append(Source(name, f"{file}.params", address, licence_of(row), digest, whole=name not in GLUON_BACKBONES.values()))
    return sources


def head_names(network: Any, other: Any) -> set[str]:
    """The parameters that depend on the number of classes: those whose length is another in a network for more classes."""
    lengths = {name: value.shape[0] for name, value in other._collect_params_with_prefix().items()}
    return {name for name, value in network._collect_params_with_prefix().items() if value.shape[0] != lengths[name]}


def take_weights(network: Any, start: Start, heads: set[str]) -> None:
    """Put a file's weights into an initialised network. Raises Invalid where they do not fit; `heads` stay as they were made
    unless they are to be kept."""
    if start.file is None:
        return
    arrays = read_arrays(start.file)
    wanted = network._collect_params_with_prefix()
    if start.part == "backbone":
        # GluonCV's networks keep the layers of their backbone under the backbone's own names.
        wanted = {name: value for name, value in wanted.items() if not name.startswith(OWN_LAYERS)}
    elif not start.keep_head:
        wanted = {name: value for name, value in wanted.items() if name not in heads}
    wrong = [name for name, value in wanted.items() if name not in arrays or arrays[name].shape != value.shape]
    if wrong or not wanted:
        raise Invalid(
            f"The weights “{start.name}” do not fit this {start.part}: {len(wrong)} of its {len(wanted)} arrays are missing in "
            f"{start.file.name} or have another shape, such as {next(iter(wrong), 'all')}.",
            "Choose weights of the same network, or start from_scratch.",
        )
    for name, value in wanted.items():
        value.set_data(arrays[name])


def read_arrays(file: Path) -> dict[str, Any]:
    """The arrays of a .params file by their names. Raises Invalid."""
    try:
        arrays = mx.nd.load(str(file))
    except mx.base.MXNetError as error:
        raise Invalid(f"{file.name} cannot be read as MXNet's parameters.", "Fetch it again, or copy it anew.") from error
    if not isinstance(arrays, dict) or not any("." in name for name in arrays):
        raise Invalid(
            f"The arrays in {file.name} have no names that a network can be matched with.",
            "Save them with the network's save_parameters().",
        )
    return arrays
