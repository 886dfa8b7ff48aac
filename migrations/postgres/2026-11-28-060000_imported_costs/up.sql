-- How many batches of imported users had password hashes of this cost, and no dearer ones. A running server looks
-- whether a number has changed: reading the hashes themselves would take it minutes.
CREATE TABLE imported_costs (
    cost    bigint PRIMARY KEY CHECK (cost BETWEEN 4 AND 31),
    batches bigint NOT NULL CHECK (batches > 0)
);
