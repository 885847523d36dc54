"""Training: a fit from its key to its published files, the engine of all networks, and searches over fits.

A way through the files, each of which needs those above it only::

    settings                            how a network is trained
    gpu_use, run                        what a fit tells the world meanwhile, and where it goes on after it was killed
    batches, streaming, network         windows as tensors, in memory or from the store, and the network given them
    schedule, noise, optimiser          the learning rate over the steps, random numbers, an update
    checkpoint, graphs, gradients       a training as arrays; a step as one launch, or in several processes and pieces
    steps, memory, engine               the loop
    members, groups, ensemble           the loop over several seeds at once
    gpu, processes                      whose GPU it is, and several of them for one fit
    provenance, predictions             what a fit was made with, and what it expects
    publication, code_id, fit           a fit, whole
    copy, fit_ensemble, predict         its files for other seeds, and further parts of its split
    search_settings, search, status     many fits: to choose among, and as they run
"""
