//! A host in memory, for a plugin's native tests (`cargo test`).
//!
//! ```
//! # use waypost_plugin::{Context, Event, Filter, Result, Verdict, deliver, skip, state};
//! # struct Once;
//! # impl Filter for Once {
//! #     fn evaluate(event: &Event, _context: &Context) -> Result<Verdict> {
//! #         if state::increment(&event.id, 1, None)? > 1 { skip("seen") } else { deliver() }
//! #     }
//! # }
//! use serde_json::json;
//! use waypost_plugin::testing::{Host, event};
//!
//! let host = Host::new().with_config(json!({"ttl_s": 60}));
//! let first = event(json!({"id": "1", "source": "/s", "type": "t", "data": {"a": 1}}));
//! assert_eq!(host.filter::<Once>(&first), Ok(Verdict::Deliver));
//! assert_eq!(host.filter::<Once>(&first), Ok(Verdict::Skip("seen".to_owned())));
//! ```

mod events;
mod host;
mod store;

pub use events::event;
pub(crate) use host::current;
pub use host::{Host, LogLine};
