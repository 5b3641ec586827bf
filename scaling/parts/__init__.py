"""The tables of a study on disk, its parts and packed tables read as one.

A part, `<table>/<run_id>.parquet`, holds the rows of one run; an import is a part under a name of its own with many
runs. A packed table, `<table>.parquet`, holds those of many. A run that has both a part and packed rows has run again
since: the part counts. Files that cannot be read are named and left out. Parts that the driver of a sweep has merged
meanwhile (`scaling.parts.merged`) are read from there as long as they have not changed. Reading follows symbolic links;
writing (`scaling.files`) does not.
"""

from scaling.parts.merged import FOLDER as MERGED
from scaling.parts.one_file import is_of_other_task, read_file
from scaling.parts.places import RUN, files, packed_path, part_path
from scaling.parts.study_table import (
    FileRows,
    StudyTable,
    holds,
    merge_parts,
    read_run,
    read_study_table,
    runs_with,
)

__all__ = [
    "MERGED",
    "RUN",
    "FileRows",
    "StudyTable",
    "files",
    "holds",
    "is_of_other_task",
    "merge_parts",
    "packed_path",
    "part_path",
    "read_file",
    "read_run",
    "read_study_table",
    "runs_with",
]
