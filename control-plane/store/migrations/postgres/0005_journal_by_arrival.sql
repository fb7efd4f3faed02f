-- PostgreSQL keeps rows in the order in which they come, and finds them by an index: nothing to do.
SELECT 1;
