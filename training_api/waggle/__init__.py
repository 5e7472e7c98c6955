"""A run of a Waggle folder: the product's loop with the plugin's training, and with the plugin's folder of results beside.

training    the product's loop, told apart from an ordinary job's in a few places
engine      the pytorch engine with the plugin's step: SGD on the summed cross-entropy of whole pictures
pictures    the batches, drawn by seed and iteration
results     MODEL-<output_dir>/: log.csv, checkpoints, tiles
tiles       six panels a picture
checkpoint  reading checkpoint.pth.tar, the plugin's own too, without running anything that is in it
__main__    the container's entry point
"""
