import dataclasses
import subprocess
import sys

import pytest

from pipeline_lib.sources import SOURCES, check_options, read_source
from tests.sources.conftest import refuses


@pytest.mark.parametrize("source", SOURCES)
def test_defaults_are_accepted_and_frozen(source):
    options = check_options(source, {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.min_rate = 2.0


@pytest.mark.parametrize("source", SOURCES)
def test_a_typo_names_the_nearest_option(source):
    with refuses(source, "option region_s", "'regions'?"):
        check_options(source, {"region_s": ["VISp"]})


def test_an_unknown_source_names_the_nearest():
    with refuses("'nwbb'", "'nwb'?"):
        check_options("nwbb")
    with refuses("'alen'", "'allen'?"):
        read_source("alen", "s", "nowhere")


@pytest.mark.parametrize(
    ("source", "options", "word"),
    [
        ("nwb", {"min_rate": -1}, "option min_rate"),
        ("nwb", {"min_rate": "fast"}, "option min_rate"),
        ("nwb", {"max_units": 0}, "option max_units"),
        ("nwb", {"regions": 3}, "option regions"),
        ("nwb", {"unit_presence": "sometimes"}, "'obs_intervals', 'spike_range' or 'always'"),
        ("nwb", {"query": {"snr": "0.5"}}, "<=0.5"),
        ("nwb", {"query": {"snr": "<=half"}}, "<=0.5"),
        ("allen", {"population": "area"}, "option population"),
        ("ibl", {"atlas_mapping": "beryl"}, "'Allen', 'Beryl' or 'Cosmos'"),
        ("ibl", {"reaction_time": [0.08]}, "option reaction_time"),
        ("tables", {"time_unit": "samples"}, "sampling_rate"),
        ("tables", {"sampling_rate": 30000}, "time_unit: samples"),
        ("tables", {"array": "spks"}, "column numbers"),
        ("tables", {"time": 1, "unit": 0}, "array"),
        ("tables", {"duration": 0}, "option duration"),
    ],
)
def test_a_value_no_option_accepts(source, options, word):
    with refuses(word):
        check_options(source, options)


def test_lists_and_single_names_are_accepted():
    assert check_options("nwb", {"regions": "VISp"}).regions == "VISp"
    assert check_options("nwb", {"regions": ["VISp", "VISl"]}).regions == ("VISp", "VISl")
    assert check_options("allen", {"max_isi_violations": None}).max_isi_violations is None


def test_checking_options_loads_no_reader():
    code = (
        "import sys; from pipeline_lib.sources import SOURCES, check_options;"
        "[check_options(source, {'regions': ['VISp']}) for source in SOURCES];"
        "heavy = {'h5py', 'pandas', 'one', 'iblatlas', 'zarr', 'scipy', 'torch'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
