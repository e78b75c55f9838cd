"""Which backups there are: from MariaDB, SQLite, or a folder of images."""
