//! A full or flooded table takes no service from a client that behaves: the laboratory of `tools/lab-fairness` with a
//! small table and for seconds.
