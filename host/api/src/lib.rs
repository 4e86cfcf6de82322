//! The bodies of Waypost's REST API: what the server writes, and what clients read. OpenAPI describes them from here, too.
//!
//! Nothing here decides or checks: the server reads the bodies of requests member by member, so that an error can point
//! at the place. A member that an older server does not send is `None`, or empty.

pub mod v1;
