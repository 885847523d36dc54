"""Evaluation: from predictions to a tidy table of scores.

A way through the files, each of which needs those above it only::

    settings                            what is scored beyond spikes
    sums, metrics                       what a score needs of the data, and the formulas
    bootstrap, rows                     how sure a score is; a row of the table
    coupling, truth, predictions        what a simulation knows, and what a fit said
    parts                               what a fit said beside what was measured
    decoding, readouts, responses       behaviour and held-out units read out, and responses to conditions
    evaluate                            all scores of a fit
    average, arrays                     the same of fits averaged, and of arrays from anywhere
"""
