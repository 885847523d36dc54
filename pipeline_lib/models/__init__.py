"""Models: the contract that all keep, the small ones, and a folder for each of the others.

A way through the files, each of which needs those above it only::

    contract, registry                  what every model is given and gives back; models by name
    mean_rate                           the smallest model, whole
    gaussian, by_session                smoothing over time; arrays of models that learn each session by itself
    poisson_ridge, readouts             the regression that makes rates of latents, and forecasts
    psth, smoothing, reduced_rank       models of that regression
    initial, torch_model                a network trained by the engine as a model, from its own start or another fit's
    masked, published                   what several networks share: hidden counts, weights of public code
"""
