"""The servers that sessions come from. Each can be replaced by an environment variable: for a mirror, or for a test.

S3 buckets follow AWS_ENDPOINT_URL_S3, the variable that the AWS clients know.
"""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoints:
    """Addresses without a slash at the end."""

    allen_warehouse: str = "http://api.brain-map.org"
    """The RMA warehouse that AllenSDK asks (TRAINYARD_ALLEN_WAREHOUSE)."""
    allen_coding: str = "s3://allen-brain-observatory/visual-coding-neuropixels/ecephys-cache"
    allen_behavior: str = "s3://visual-behavior-neuropixels-data/visual-behavior-neuropixels"
    ibl_public: str = "s3://ibl-brain-wide-map-public"
    alyx: str = "https://openalyx.internationalbrainlab.org"
    """The database of IBL, for those who have an account (TRAINYARD_ALYX)."""
    ibl_files: str = ""
    """The file server of IBL (TRAINYARD_IBL_FILES); by default the one that ONE knows."""
    dandi: str = "https://api.dandiarchive.org/api"

    @classmethod
    def from_environment(cls) -> "Endpoints":
        """The defaults, but for what TRAINYARD_<NAME> says in the environment."""
        names = cls.__dataclass_fields__
        found = {name: os.environ.get(f"TRAINYARD_{name.upper()}", "").rstrip("/") for name in names}
        return cls(**{name: value for name, value in found.items() if value})
