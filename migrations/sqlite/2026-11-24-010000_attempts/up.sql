-- What counts towards a limit: failed password checks of an account from a source, registrations of a
-- source, and so on. Subject and source are keyed digests: the table names nobody, not even strangers
-- whose e-mail somebody tried. `counted` and `pending` hold times, 8 bytes each (microseconds since the
-- Unix epoch, big-endian): what counts, and what is under way and may come to count.
CREATE TABLE attempts (
    subject     BLOB    NOT NULL CHECK (length(subject) = 32),
    source      BLOB    NOT NULL CHECK (length(source) = 32),
    counted     BLOB    NOT NULL CHECK (length(counted) <= 8000 AND length(counted) % 8 = 0),
    pending     BLOB    NOT NULL CHECK (length(pending) <= 8000 AND length(pending) % 8 = 0),
    -- Until when the source is one from which the subject has logged in.
    known_until INTEGER,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (subject, source)
) STRICT, WITHOUT ROWID;

CREATE INDEX attempts_by_expiry ON attempts (expires_at);
