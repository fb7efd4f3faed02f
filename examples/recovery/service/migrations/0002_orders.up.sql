CREATE TABLE orders (id INTEGER PRIMARY KEY, item INTEGER NOT NULL REFERENCES items (id));
CREATE INDEX orders_by_item ON orders (item);
