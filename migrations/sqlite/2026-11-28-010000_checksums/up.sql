-- SHA-256 of each migration as it was run, in hexadecimal: tells one that was edited since.
ALTER TABLE __diesel_schema_migrations ADD COLUMN checksum TEXT;
