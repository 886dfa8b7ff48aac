DROP TABLE imported_costs;
