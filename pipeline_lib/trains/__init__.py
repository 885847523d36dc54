"""Trains: spikes as integer events, the samples that are cut from them, and which of these train, choose and test.

A way through the files, each of which needs those above it only::

    settings                            what can be set
    shards, tables, manifest            arrays, tables and hashes, as a store keeps them
    events, binning, dense, device      spikes sorted by time, and counts of them: in memory, on disk, on a GPU
    object_store, store                 the store of a session, here or in a bucket
    windows, leakage, splits            samples, the part that each belongs to, and what may not meet
    signals, sessions, loader           batches for a training loop of one's own
    nlb_arrays, export                  what other tools read
"""
