//! The paths of the WebAssembly guests that the build script builds.

include!(concat!(env!("OUT_DIR"), "/guests.rs"));
