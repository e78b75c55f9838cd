"""What restorefs changes in a catalog's database: restore_mounts, and nothing else.

Owns the revisions (in `versions`) and how they are run (env.py, which only the migration tool
executes). A revision says what it did by `said`. Each copes with finding its work done already:
MariaDB commits every table change at once, so an interrupted run is simply run again.
"""
