"""Labelled pictures: bring them in, check them, split them, look at them, learn from them. numpy and Pillow only.

dataset        a folder of pictures and masks, paired by file stem
doctor/        everything that is wrong with such a folder, file by file, and the cures
split          which pictures teach, which score, and which are kept for the end
formats/       fifteen ways to keep labelled pictures, one module each; shapes and run_lengths: outlines and masks
importing      any of them → a dataset, all of it or nothing; exporting: a dataset → COCO or index masks
archives       zip and tar, unpacked without trusting them; untrusted: names and errors that strangers cause
augment        crops to learn from: cut, scaled, mirrored, recoloured; contact_sheet: to look at before a training
whole_picture  from a picture of any size to a mask of the same size, in training's scoring and in serving alike; tiles: its large ones
colours        the colours of classes, and masks drawn over pictures
dummy          draws datasets/dummy_dataset
"""
