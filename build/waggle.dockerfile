# The Waggle way of working as one command, on top of the image of PyTorch trainings (docs/waggle.md):
#   docker build -t maskwright_waggle -f build/waggle.dockerfile .
#   docker run --rm -v FOLDER:/storage maskwright_waggle --config config.list --image_type waggle_cloud
ARG TRAINING_IMAGE=pytorch_semantic_segmentation_training_api_cpu
FROM ${TRAINING_IMAGE}
# Who runs it with --user has no home of its own there.
ENV HOME=/tmp
ENTRYPOINT ["python", "-m", "training_api.waggle"]
