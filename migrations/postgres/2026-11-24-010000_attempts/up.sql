-- What counts towards a limit: failed password checks of an account from a source, registrations of a
-- source, and so on. Subject and source are keyed digests: the table names nobody, not even strangers
-- whose e-mail somebody tried. `counted` and `pending` hold times, 8 bytes each (microseconds since the
-- Unix epoch, big-endian): what counts, and what is under way and may come to count.
CREATE TABLE attempts (
    subject     bytea       NOT NULL CHECK (octet_length(subject) = 32),
    source      bytea       NOT NULL CHECK (octet_length(source) = 32),
    counted     bytea       NOT NULL CHECK (octet_length(counted) <= 8000 AND octet_length(counted) % 8 = 0),
    pending     bytea       NOT NULL CHECK (octet_length(pending) <= 8000 AND octet_length(pending) % 8 = 0),
    -- Until when the source is one from which the subject has logged in.
    known_until timestamptz,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (subject, source)
);

CREATE INDEX attempts_by_expiry ON attempts (expires_at);
