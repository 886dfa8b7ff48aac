-- The rules are the same, in words that more versions of SQLite read: there is nothing to go back to.
SELECT 1;
