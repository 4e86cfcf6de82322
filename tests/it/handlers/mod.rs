//! Handlers: programs that run on an event's data files, and the services that these come from and go to.

mod cart;

mod fetching;
mod hostile_carts;
