//! Handlers: programs that run on an event's data files.
//!
//! `cart` and `ingest` are the services that files come from and go to, scripted.

mod ingest;

mod uploading;
