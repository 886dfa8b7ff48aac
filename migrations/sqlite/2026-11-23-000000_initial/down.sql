DROP TABLE signing_keys;
DROP TABLE request_outcomes;
DROP TABLE sessions;
DROP TABLE passwords;
DROP TABLE login_names;
DROP TABLE users;
DROP TABLE tenants;
