"""Runs: a trained model on disk, its figures and its scores.

run         the model with all that it needs to score raw rows
folder      to the disk and back
manifest    which files belong to a run, and their digests
config      config.json: how its log was read, and how it was trained
options     the options of training
scoring     scores of batches and of raw rows
scorer      single rows and batches, fast and from many threads
scores      scores to a file
predict     raw rows in, a file of scores out
evaluate    what a run is worth on a log
ids         whether a log has the ids of a run
metrics     AUC, log loss, GAUC, calibration
popularity  the floor that needs no model
warming     scores before there are kernels
delta       what changed between two runs, and the new run made of it (delta_file, delta_pieces,
            delta_ways: the file, a file in pieces, how a piece is written)
"""
