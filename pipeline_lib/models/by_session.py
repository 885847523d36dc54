"""The state of a model that learns each session by itself: arrays named `{session}/{name}`, and back."""

from collections.abc import Mapping

import numpy as np


def joined(sessions: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """As one state, what was learned of each session, by name."""
    return {f"{session}/{name}": value for session, learned in sessions.items() for name, value in learned.items()}


def by_session(state: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """What `joined` made a state of."""
    sessions: dict[str, dict[str, np.ndarray]] = {}
    for key, value in state.items():
        session, _, name = key.rpartition("/")
        sessions.setdefault(session, {})[name] = value
    return sessions
