# What Snakemake remembers of a result it keeps by path in `.snakemake`, which stays behind where results are moved or copied.
# Here it keeps it beside the result, too, and reads it there first: so every result is judged by what it was made with.
import snakemake.workflow
from contextlib import suppress
from functools import lru_cache

from pipeline_lib import made_with

# Downloads are left out, which projects may share: what one asked of them stands in its results.
TRAVELLING = f"{RESULTS}/"


def travelling(records):
    """Snakemake's class of records, such that they are kept beside results, too."""
    from snakemake.persistence import MetadataRecord, ParamsChange

    silent = []

    class ReadableChange(ParamsChange):
        """Parameters that have changed, without those of their settings that have not."""

        def __str__(self):
            return made_with.difference(self.only_old, self.only_new)

    @lru_cache
    def kept(file):
        content = made_with.read_made_with(file, RESULTS)
        try:
            return content and MetadataRecord.model_validate(content)
        except ValueError:  # of another version of Snakemake
            return None

    class Travelling(records):
        def _read_record(self, key):
            return key.startswith(TRAVELLING) and kept(key) or super()._read_record(key)

        def _write_record(self, key, record):
            super()._write_record(key, record)
            if key.startswith(TRAVELLING):
                try:
                    made_with.beside(key).unlink(missing_ok=True)
                    if Path(key).exists():  # else the job has failed
                        made_with.write_made_with(key, dict(record.items()), RESULTS)
                except OSError as error:  # a full disk: what is in `.snakemake` is enough while nothing is moved
                    print(f"{made_with.beside(key)} was not written: {error.strerror}", file=sys.stderr)

        def _delete_record(self, key):
            if key.startswith(TRAVELLING):
                made_with.beside(key).unlink(missing_ok=True)
            return super()._delete_record(key)

        def _clear_cache(self):
            kept.cache_clear()
            super()._clear_cache()

        def has_metadata(self, job):
            known = super().has_metadata(job)
            first = "" if known else str(job.output[0])
            # It is asked of what is still to be made, too.
            if first.startswith(TRAVELLING) and Path(first).exists() and not silent:
                silent.append(job)
                print(
                    f"note: {first} does not say what it was made with, nor does what Snakemake calls missing"
                    " metadata: it is taken as it is. Remove it to have it made anew; or, with the configuration that it was"
                    " made with: snakemake --touch --forceall --cores all",
                    file=sys.stderr,
                )
            return known

        def params_changed(self, job, file=None):
            changes = super().params_changed(job, file)
            return ReadableChange(changes.only_old, changes.only_new, changes.files) if changes else changes

    return Travelling


# In an object store only what is declared is kept.
if not STORED:
    for each in ("FilePersistence", "DbPersistence"):
        # A Snakemake that keeps its records otherwise keeps them by path alone.
        with suppress(AttributeError, ImportError):
            setattr(snakemake.workflow, each, travelling(getattr(snakemake.workflow, each)))
