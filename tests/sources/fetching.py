"""What the tests of fetching share."""

from pipeline_lib.sources.transport import Network

QUICK = Network(connect=1.0, stall=1.0, attempts=4, backoff=0.01, longest_wait=0.05)
